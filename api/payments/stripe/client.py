"""Every request that we make to Stripe, in one place, and what its errors mean.

The API version is pinned: the shapes that are read here and in `reading` are of it.
What is sent never holds card data (Checkout's own page takes those), and what is raised or logged
never holds a key. POSTs carry an idempotency key that is derived from our ids, so that a request
which was cut off and is sent again has one effect. Reads return None for what Stripe does not have.
https://docs.stripe.com/api, https://docs.stripe.com/api/idempotent_requests
"""

import logging
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

import stripe
import structlog
from stripe import HTTPXClient, StripeClient, StripeError
from stripe.params import SubscriptionUpdateParams
from stripe.params.checkout import (
    SessionCreateParams,
    SessionCreateParamsLineItem,
    SessionListParams,
)

from api.errors import Refused
from api.options import PaymentOptions
from api.payments import metrics
from api.payments.stripe.errors import (
    is_missing,
    is_request_error,
    outcome_of,
    redacted,
    refused,
)

API_VERSION: Final = "2026-10-28.endive"
RETRIES: Final = 2
TIMEOUT_S: Final = 20.0
PAGE: Final = 100
INVOICES_MAX: Final = 100
DESCRIPTION_CHARACTERS_MAX: Final = 500
NAME_CHARACTERS_MAX: Final = 256
SESSION_LIFE: Final = timedelta(hours=23)
"""Stripe takes 30 minutes to 24 hours from now; counted from our row, so that a repeated request
has the same parameters."""

ORGANIZATION: Final = "metering_organization"
PROFILE: Final = "metering_profile"
PURCHASE: Final = "metering_purchase"

log = structlog.get_logger()
Answer = TypeVar("Answer")
Listed = TypeVar("Listed", bound=stripe.StripeObject)

# At level `debug` the library writes whole requests and answers, with people's addresses in them.
for _name in ("stripe", "httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Sale:
    """What a Checkout session sells; all of it goes into Stripe's metadata, so that a purchase
    can be made again from there after an older backup was restored."""

    organization_id: str
    profile_id: str
    pool_kind: str
    pool_id: str
    purchase_id: str
    customer_id: str
    is_monthly: bool
    quantity: int
    package_id: str
    package_name: str
    package_credits_micro: int
    package_price_minor: int
    currency: str
    stripe_price_id: str | None
    bought_by: str
    created_at: datetime
    success_url: str
    cancel_url: str

    def metadata(self) -> dict[str, str]:
        return {
            ORGANIZATION: self.organization_id,
            PROFILE: self.profile_id,
            PURCHASE: self.purchase_id,
            "metering_pool_kind": self.pool_kind,
            "metering_pool": self.pool_id,
            "metering_kind": "monthly" if self.is_monthly else "one_time",
            "metering_quantity": str(self.quantity),
            "metering_package": self.package_id,
            "metering_package_name": self.package_name,
            "metering_package_credits_micro": str(self.package_credits_micro),
            "metering_package_price_minor": str(self.package_price_minor),
            "metering_currency": self.currency,
            "metering_bought_by": self.bought_by,
        }

    def description(self) -> str:
        """What the buyer reads beside the amount and on the invoice. Ids, not names, which may
        change between two tries: a key of Stripe's stands for one request."""
        bought = f"{self.quantity} x {self.package_name}"
        pool = f"{self.pool_kind} {self.pool_id} of {self.organization_id}"
        return f"{bought} for {pool}"[:DESCRIPTION_CHARACTERS_MAX]

    def line_item(self) -> SessionCreateParamsLineItem:
        """The operator's own price where there is one, else one that is made for this sale."""
        if self.stripe_price_id:
            return {"price": self.stripe_price_id, "quantity": self.quantity}
        item: SessionCreateParamsLineItem = {
            "quantity": self.quantity,
            "price_data": {
                "currency": self.currency.lower(),
                "unit_amount": self.package_price_minor,
                "product_data": {"name": self.package_name},
            },
        }
        if self.is_monthly:
            item["price_data"]["recurring"] = {"interval": "month"}
        return item


class StripeRequests:
    """One client for a process; its methods belong to one event loop."""

    def __init__(self, options: PaymentOptions) -> None:
        self._http = HTTPXClient(timeout=TIMEOUT_S)
        self.v1 = StripeClient(
            options.api_key.get_secret_value(),
            stripe_version=API_VERSION,
            base_addresses={"api": options.api_base.rstrip("/")} if options.api_base else None,
            max_network_retries=RETRIES,
            http_client=self._http,
        ).v1

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def ask(self, operation: str, request: Awaitable[Answer]) -> Answer:
        """The answer. Raises Refused (502, 503), with the library's error as its cause."""
        try:
            answer = await request
        except StripeError as error:
            outcome = outcome_of(error)
            metrics.REQUESTS.labels(operation, outcome).inc()
            if outcome != "missing":
                log.warning(
                    "stripe request failed",
                    operation=operation,
                    outcome=outcome,
                    request_id=error.request_id,
                    what=redacted(str(error)),
                )
            raise refused(error) from error
        metrics.REQUESTS.labels(operation, "ok").inc()
        return answer

    async def find(self, operation: str, request: Awaitable[Answer]) -> Answer | None:
        """As `ask`, and None for what Stripe does not have."""
        try:
            return await self.ask(operation, request)
        except Refused as error:
            if is_missing(error):
                return None
            raise

    async def account(self) -> stripe.Account:
        return await self.ask("account", self.v1.accounts.retrieve_current_async())

    async def create_customer(
        self,
        organization_id: str,
        profile_id: str,
        pool: tuple[str, str],
        name: str,
        instead_of: str | None = None,
        attempt: str = "",
    ) -> str:
        """The id of the profile's customer; its invoices are to `name`. `instead_of` is one that
        was deleted at Stripe, `attempt` as in `create_session`."""
        after = "".join(f":{part}" for part in (instead_of, attempt) if part)
        customer = await self.ask(
            "customer.create",
            self.v1.customers.create_async(
                {
                    "name": name[:NAME_CHARACTERS_MAX],
                    "description": f"{organization_id}: {pool[0]} {pool[1]}",
                    "metadata": {
                        ORGANIZATION: organization_id,
                        PROFILE: profile_id,
                        "metering_pool_kind": pool[0],
                        "metering_pool": pool[1],
                    },
                },
                {"idempotency_key": f"customer:{profile_id}{after}"},
            ),
        )
        return customer.id

    async def create_session(self, sale: Sale, attempt: int = 0) -> stripe.checkout.Session:
        """One session for a purchase, however often it is asked for; `attempt` is raised only after
        Stripe failed for good, whose answer it would repeat for a day."""
        metadata, description = sale.metadata(), sale.description()
        params: SessionCreateParams = {
            "mode": "subscription" if sale.is_monthly else "payment",
            "customer": sale.customer_id,
            "client_reference_id": sale.purchase_id,
            "line_items": [sale.line_item()],
            "metadata": metadata,
            "success_url": sale.success_url,
            "cancel_url": sale.cancel_url,
            "expires_at": int((sale.created_at + SESSION_LIFE).timestamp()),
            "expand": ["line_items"],
        }
        if sale.is_monthly:
            params["subscription_data"] = {"metadata": metadata, "description": description}
        else:
            params["payment_intent_data"] = {"metadata": metadata, "description": description}
            params["invoice_creation"] = {
                "enabled": True,
                "invoice_data": {"metadata": metadata, "description": description},
            }
        suffix = f":{attempt}" if attempt else ""
        key = f"session:{sale.purchase_id}:{sale.customer_id}{suffix}"
        return await self.ask(
            "session.create",
            self.v1.checkout.sessions.create_async(params, {"idempotency_key": key}),
        )

    async def expire_session(self, session_id: str, at_ms: int) -> None:
        """Nobody can pay it any more; nothing happens where it is open no longer."""
        try:
            await self.ask(
                "session.expire",
                self.v1.checkout.sessions.expire_async(
                    session_id, {}, {"idempotency_key": f"expire:{session_id}:{at_ms}"}
                ),
            )
        except Refused as error:
            if not is_request_error(error):
                raise

    async def portal(self, customer_id: str, profile_id: str, return_url: str, at_ms: int) -> str:
        """A short-lived address where the customer changes cards and reads invoices."""
        session = await self.ask(
            "portal.create",
            self.v1.billing_portal.sessions.create_async(
                {"customer": customer_id, "return_url": return_url},
                {"idempotency_key": f"portal:{profile_id}:{at_ms}"},
            ),
        )
        return session.url

    async def cancel_at_period_end(
        self, subscription_id: str, purchase_id: str, turn: str, *, cancel: bool
    ) -> None:
        """`cancel`: it ends with its period; else it goes on after all. What was cancelled and
        resumed may be cancelled again, so each `turn` has a key of its own."""
        params: SubscriptionUpdateParams = {"cancel_at_period_end": cancel}
        word = "cancel" if cancel else "resume"
        await self.ask(
            f"subscription.{word}",
            self.v1.subscriptions.update_async(
                subscription_id, params, {"idempotency_key": f"{word}:{purchase_id}:{turn}"}
            ),
        )

    async def cancel_now(self, subscription_id: str) -> None:
        """At once and for good, without a refund (Stripe's default); nothing happens where it is
        gone."""
        await self.find(
            "subscription.end",
            self.v1.subscriptions.cancel_async(subscription_id),
        )

    async def customer(self, customer_id: str) -> stripe.Customer | None:
        return await self.find("customer.read", self.v1.customers.retrieve_async(customer_id))

    async def session(self, session_id: str) -> stripe.checkout.Session | None:
        """With its line items, its customer and its payment intent."""
        expand = ["line_items", "customer", "payment_intent"]
        return await self.find(
            "session.read",
            self.v1.checkout.sessions.retrieve_async(session_id, {"expand": expand}),
        )

    async def session_of(self, named: SessionListParams) -> stripe.checkout.Session | None:
        """The session that made a subscription or a payment intent."""
        listed = await self.ask(
            "session.list", self.v1.checkout.sessions.list_async({**named, "limit": 1})
        )
        return listed.data[0] if listed.data else None

    async def subscription(self, subscription_id: str) -> stripe.Subscription | None:
        return await self.find(
            "subscription.read", self.v1.subscriptions.retrieve_async(subscription_id)
        )

    async def invoice(self, invoice_id: str) -> stripe.Invoice | None:
        return await self.find(
            "invoice.read", self.v1.invoices.retrieve_async(invoice_id, {"expand": ["payments"]})
        )

    async def newest_invoices(self, subscription_id: str) -> list[stripe.Invoice]:
        """At most `INVOICES_MAX`, newest first."""
        listed = await self.ask(
            "invoice.list",
            self.v1.invoices.list_async(
                {
                    "subscription": subscription_id,
                    "limit": INVOICES_MAX,
                    "expand": ["data.payments"],
                }
            ),
        )
        return listed.data

    async def next_invoice(self, subscription_id: str) -> stripe.Invoice | None:
        """What Stripe would invoice at the end of the period; None where it would not."""
        try:
            return await self.ask(
                "invoice.preview",
                self.v1.invoices.create_preview_async({"subscription": subscription_id}),
            )
        except Refused as error:
            if is_request_error(error):
                return None
            raise

    async def invoices_of_intent(self, payment_intent_id: str) -> list[stripe.InvoicePayment]:
        """Which invoices an intent paid: the intent itself does not say."""
        listed = await self.ask(
            "invoice_payment.list",
            self.v1.invoice_payments.list_async(
                {"payment": {"type": "payment_intent", "payment_intent": payment_intent_id}}
            ),
        )
        return listed.data

    async def payment_intent(self, payment_intent_id: str) -> stripe.PaymentIntent | None:
        return await self.find(
            "payment_intent.read", self.v1.payment_intents.retrieve_async(payment_intent_id)
        )

    async def charge(self, charge_id: str) -> stripe.Charge | None:
        return await self.find("charge.read", self.v1.charges.retrieve_async(charge_id))

    def charges_of_intent(self, payment_intent_id: str) -> AsyncIterator[stripe.Charge]:
        return self.paged(
            "charge.list",
            self.v1.charges.list_async({"payment_intent": payment_intent_id, "limit": PAGE}),
        )

    def disputes_of_charge(self, charge_id: str) -> AsyncIterator[stripe.Dispute]:
        return self.paged(
            "dispute.list", self.v1.disputes.list_async({"charge": charge_id, "limit": PAGE})
        )

    async def paged(
        self, operation: str, first: "Awaitable[stripe.ListObject[Listed]]"
    ) -> AsyncIterator[Listed]:
        """All of a list, page after page."""
        page = await self.ask(operation, first)
        while True:
            for one in page.data:
                yield one
            if not page.has_more or not page.data:
                return
            page = await self.ask(operation, page.next_page_async())
