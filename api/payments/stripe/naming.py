"""Which purchases an object of Stripe's belongs to.

Our ids are in the metadata of everything that a sale makes; charges of renewals, refunds and
disputes have none and are found by what they name: payment intent, invoice, subscription, customer.
First the database is asked, then Stripe. An object that names nothing of ours is another product's
of the same account; one that names what is not here is unknown, and a person has to look.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, select

from api.payments.looking import Named, NotOurs, Purchases, Unknown
from api.payments.settling import PurchaseKey
from api.payments.stripe.client import ORGANIZATION, PURCHASE, StripeRequests
from api.payments.stripe.reading import id_of
from api.storage.purchases import (
    STRIPE,
    BillingProfile,
    Invoice,
    ProviderEvent,
    Purchase,
    Subscription,
)
from api.storage.store import Store

Thing = Mapping[str, Any]

OBJECTS: Final = frozenset(
    {
        "checkout.session",
        "subscription",
        "invoice",
        "payment_intent",
        "charge",
        "refund",
        "dispute",
        "invoice_payment",
    }
)
"""What may move money; everything else that Stripe tells of is passed over."""
OBJECT_ID: Final = re.compile(r"[A-Za-z0-9_]+")
"""The ids that Stripe gives to what may move money; they go into the paths of requests."""
CUSTOMER_DELETED: Final = "customer.deleted"
NOT_OURS: Final = NotOurs("it names nothing of ours")
PURCHASES_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class StripeNaming:
    """Names purchases. Raises Refused where Stripe has to be asked and does not answer."""

    store: Store
    requests: StripeRequests

    async def of_event(self, event: ProviderEvent) -> Named:
        """By the object that the webhook carried."""
        if event.type == CUSTOMER_DELETED:
            return await self.of_customer(event.object_id)
        if event.object_kind not in OBJECTS:
            return NotOurs("it moves no money")
        if OBJECT_ID.fullmatch(event.object_id) is None:
            return NotOurs("its id is none of Stripe's")
        try:
            thing = msgspec.json.decode(event.body)["data"]["object"]
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise ValueError("a stored webhook cannot be read any more") from error
        return await self.of(thing)

    async def of(self, thing: Thing) -> Named:
        """By any object of `OBJECTS`, as Stripe shows it."""
        named = await asyncio.to_thread(self._here, thing)
        if named is not None:
            return named
        if intent_id := _intent_of(thing):
            return await self._of_intent(intent_id)
        if charge_id := id_of(thing.get("charge")):
            return await self._of_charge(charge_id)
        if invoice_id := id_of(thing.get("invoice")):
            return await self._of_invoice(invoice_id)
        return NOT_OURS

    async def of_charge(self, thing: Thing) -> Named:
        """As `of`; a customer of ours who paid for nothing that was sold is unknown, too."""
        named = await self.of(thing)
        customer_id = id_of(thing.get("customer"))
        if named is not NOT_OURS or thing.get("status") != "succeeded" or not customer_id:
            return named
        whose = await self.of_customer(customer_id)
        if not isinstance(whose, Purchases):
            return NOT_OURS
        message = "A customer of ours paid it, and it belongs to no purchase."
        return Unknown("charge", str(thing["id"]), message, whose.keys[0].organization_id)

    def _here(self, thing: Thing) -> Named | None:
        """By the metadata and by what the database knows; None where it knows nothing."""
        kind, own_id = str(thing.get("object", "")), str(thing.get("id", ""))
        metadata = _metadata(thing)
        with self.store.read() as session:
            if PURCHASE in metadata:
                organization_id = metadata.get(ORGANIZATION, "")
                purchase = session.get(Purchase, (organization_id, metadata[PURCHASE]))
                if purchase is None or purchase.provider != STRIPE:
                    message = f"It is for purchase {metadata[PURCHASE]!r}, which is not here."
                    return Unknown(kind, own_id, message[:1024])
                subscription = session.get(Subscription, (organization_id, purchase.id))
                if twin := _twin(kind, own_id, thing, purchase, subscription):
                    return Unknown(kind, own_id, twin, organization_id)
                return Purchases((PurchaseKey(organization_id, purchase.id),))
            for condition in _conditions(kind, own_id, thing):
                found = session.execute(
                    select(Purchase.organization_id, Purchase.id)
                    .select_from(Purchase)
                    .outerjoin(Subscription, _of_purchase(Subscription))
                    .outerjoin(Invoice, _of_purchase(Invoice))
                    .where(condition)
                    .limit(1)
                ).first()
                if found is not None:
                    return Purchases((PurchaseKey(*found),))
        return None

    async def _of_intent(self, intent_id: str) -> Named:
        """Renewals: an intent names no invoice, but the invoice's payment names both."""
        payments = await self.requests.invoices_of_intent(intent_id)
        for payment in payments:
            invoice_id = id_of(payment.invoice)
            if invoice_id and (named := await self._of_invoice(invoice_id)) is not NOT_OURS:
                return named
        intent = await self.requests.payment_intent(intent_id)
        if intent is None:
            return NOT_OURS
        return await asyncio.to_thread(self._here, intent.to_dict()) or NOT_OURS

    async def _of_invoice(self, invoice_id: str) -> Named:
        invoice = await self.requests.invoice(invoice_id)
        if invoice is None:
            return NOT_OURS
        return await asyncio.to_thread(self._here, invoice.to_dict()) or NOT_OURS

    async def _of_charge(self, charge_id: str) -> Named:
        charge = await self.requests.charge(charge_id)
        return NOT_OURS if charge is None else await self.of(charge.to_dict())

    async def of_customer(self, customer_id: str) -> Named:
        def find() -> list[PurchaseKey]:
            with self.store.read() as session:
                rows = session.execute(
                    select(Purchase.organization_id, Purchase.id)
                    .join(
                        BillingProfile,
                        (BillingProfile.organization_id == Purchase.organization_id)
                        & (BillingProfile.id == Purchase.profile_id),
                    )
                    .where(BillingProfile.stripe_customer_id == customer_id)
                    .limit(PURCHASES_MAX)
                ).all()
            return [PurchaseKey(*row) for row in rows]

        keys = await asyncio.to_thread(find)
        return Purchases(tuple(keys)) if keys else NOT_OURS


def _twin(
    kind: str,
    own_id: str,
    thing: Thing,
    purchase: Purchase,
    subscription: Subscription | None,
) -> str:
    """What is wrong where the purchase has another session or subscription already; else empty. An
    unpaid one does nobody harm."""
    if kind == "checkout.session" and purchase.session_id not in (None, own_id):
        if thing.get("payment_status") == "paid":
            return f"Purchase {purchase.id!r} has another session, {purchase.session_id!r}."
        return ""
    if kind == "subscription" and subscription is not None and subscription.provider_id != own_id:
        return f"Purchase {purchase.id!r} has another subscription, {subscription.provider_id!r}."
    return ""


def _metadata(thing: Thing) -> dict[str, str]:
    """Its own, or an invoice's copy of its subscription's."""
    details = _subscription_details(thing)
    for metadata in (thing.get("metadata"), details.get("metadata")):
        if isinstance(metadata, Mapping) and isinstance(metadata.get(PURCHASE), str):
            return {str(name): str(value) for name, value in metadata.items()}
    return {}


def _subscription_details(thing: Thing) -> Thing:
    parent = thing.get("parent")
    details = parent.get("subscription_details") if isinstance(parent, Mapping) else None
    return details if isinstance(details, Mapping) else {}


def _intent_of(thing: Thing) -> str | None:
    if thing.get("object") == "payment_intent":
        return str(thing["id"])
    if thing.get("object") == "invoice_payment":
        payment = thing.get("payment")
        return id_of(payment.get("payment_intent")) if isinstance(payment, Mapping) else None
    return id_of(thing.get("payment_intent"))


def _conditions(kind: str, own_id: str, thing: Thing) -> list[ColumnElement[bool]]:
    """What of our tables it may be found by, one after the other."""
    conditions: list[ColumnElement[bool]] = []
    session_id = own_id if kind == "checkout.session" else None
    subscription_id = own_id if kind == "subscription" else id_of(thing.get("subscription"))
    subscription_id = subscription_id or id_of(_subscription_details(thing).get("subscription"))
    invoice_id = own_id if kind == "invoice" else id_of(thing.get("invoice"))
    intent_id = _intent_of(thing)
    if session_id:
        conditions.append((Purchase.provider == STRIPE) & (Purchase.session_id == session_id))
    if subscription_id:
        conditions.append(
            (Subscription.provider == STRIPE) & (Subscription.provider_id == subscription_id)
        )
    if invoice_id:
        conditions.append((Invoice.provider == STRIPE) & (Invoice.provider_id == invoice_id))
    if intent_id:
        conditions.append((Purchase.provider == STRIPE) & (Purchase.payment_intent_id == intent_id))
    return conditions


def _of_purchase(table: type[Subscription] | type[Invoice]) -> ColumnElement[bool]:
    return (table.organization_id == Purchase.organization_id) & (table.purchase_id == Purchase.id)
