"""Which requests there are, with the parameters of each and who answers it.

`params` are the classes of Stripe's own library, which say what a request may carry; `supported`
names what the stand-in acts on (None: all of it).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import stripe.params as p
from stripe.params import billing_portal as portal_params
from stripe.params import checkout as checkout_params

from deploy.embedded.stripe import (
    catalog,
    checkout,
    customers,
    invoices,
    payments,
    portal,
    returns,
    subscriptions,
)
from deploy.embedded.stripe.answers import (
    PAGING,
    Filters,
    equal,
    like,
    matching,
    one_of,
    page,
    within,
)
from deploy.embedded.stripe.customers import kept
from deploy.embedded.stripe.problems import Problem
from deploy.embedded.stripe.shapes import blank
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

Handler = Callable[[World, Thing, Thing], Thing]


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    path: re.Pattern[str]
    params: Any
    handler: Handler
    supported: tuple[str, ...] | None = None


def _endpoint(
    method: str,
    path: str,
    params: Any,
    handler: Handler,
    supported: tuple[str, ...] | None = None,
) -> Endpoint:
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
    return Endpoint(method, re.compile(f"{pattern}/?$"), params, handler, supported)


def _get(kind: str) -> Handler:
    return lambda world, path, params: world.get(kind, path["id"], status=404)


def _list(kind: str, url: str, filters: Filters) -> Handler:
    def listed(world: World, path: Thing, params: Thing) -> Thing:
        return page(matching(world.store.newest_first(kind), params, filters), params, url)

    return listed


def _by_status(subscription: Thing, status: str) -> bool:
    ended = subscription["status"] in subscriptions.ENDED
    return status == "all" or (ended if status == "ended" else subscription["status"] == status)


def _subscriptions(world: World, path: Thing, params: Thing) -> Thing:
    """Without a status: those that are not canceled."""
    found = world.store.newest_first("subscription")
    if "status" not in params:
        found = (thing for thing in found if thing["status"] != "canceled")
    return page(matching(found, params, SUBSCRIPTION_FILTERS), params, "/v1/subscriptions")


def _account(world: World, path: Thing, params: Thing) -> Thing:
    return blank(
        "account",
        id=world.store.setting("account"),
        business_profile={"name": invoices.ACCOUNT_NAME, "support_email": None, "url": None},
        business_type="company",
        capabilities={"card_payments": "active"},
        charges_enabled=True,
        country="US",
        created=0,
        default_currency="usd",
        details_submitted=True,
        payouts_enabled=True,
        settings={"dashboard": {"display_name": invoices.ACCOUNT_NAME, "timezone": "Etc/UTC"}},
        type="standard",
    )


def _session_items(world: World, path: Thing, params: Thing) -> Thing:
    session = world.get("checkout.session", path["id"], status=404)
    url = f"/v1/checkout/sessions/{session['id']}/line_items"
    return page(checkout.line_items(world, session), params, url)


def _invoice_lines(world: World, path: Thing, params: Thing) -> Thing:
    invoice = world.get("invoice", path["id"], status=404)
    return page(invoice["lines"]["data"], params, f"/v1/invoices/{invoice['id']}/lines")


def _metadata(kind: str, event: str | None) -> Handler:
    def update(world: World, path: Thing, params: Thing) -> Thing:
        thing = world.get(kind, path["id"], status=404)
        metadata = customers.merged(thing["metadata"], params.get("metadata", {}))
        return world.update(thing, event, metadata=metadata)

    return update


def _finalize(world: World, path: Thing, params: Thing) -> Thing:
    invoice = world.get("invoice", path["id"], status=404)
    return invoices.finalize(world, invoice)


def _pay(world: World, path: Thing, params: Thing) -> Thing:
    """A declined card is an answer of its own, and the attempt counts."""
    invoice = world.get("invoice", path["id"], status=404)
    if invoice["status"] == "draft":
        invoices.finalize(world, invoice)
    if invoice["status"] not in invoices.PAYABLE:
        raise Problem(f"Invoice is already {invoice['status']}", code="invoice_not_editable")
    if params.get("paid_out_of_band"):
        invoices.pay_out_of_band(world, invoice)
        subscriptions.after_success(world, invoice)
        return world.get("invoice", invoice["id"])
    outcome = payments.next_automatic_outcome(world, invoice["customer"])
    subscriptions.settled(world, invoice, outcome)
    if outcome.status == "failed":
        raise Declined(outcome.code)
    return world.get("invoice", invoice["id"])


class Declined(Problem):
    """What was tried stays as it is, although the answer is an error."""

    def __init__(self, code: str) -> None:
        super().__init__("Your card was declined.", status=402, kind="card_error", code=code)


def _closing(close: Callable[[World, Thing], Thing]) -> Handler:
    def handler(world: World, path: Thing, params: Thing) -> Thing:
        invoice = world.get("invoice", path["id"], status=404)
        close(world, invoice)
        subscriptions.after_closing(world, invoice)
        return world.get("invoice", invoice["id"])

    return handler


def _refund_metadata(world: World, path: Thing, params: Thing) -> Thing:
    refund = world.get("refund", path["id"], status=404)
    return world.update(refund, "refund.updated", metadata=kept(params.get("metadata")))


CREATED = {"created": within("created")}
SUBSCRIPTION_FILTERS: Filters = {
    **CREATED,
    "customer": equal("customer"),
    "status": _by_status,
}
SESSION_FILTERS: Filters = {
    **CREATED,
    "customer": equal("customer"),
    "payment_intent": equal("payment_intent"),
    "status": equal("status"),
    "subscription": equal("subscription"),
}
INVOICE_FILTERS: Filters = {
    **CREATED,
    "collection_method": equal("collection_method"),
    "customer": equal("customer"),
    "status": equal("status"),
    "subscription": equal("parent", "subscription_details", "subscription"),
}
EVENT_FILTERS: Filters = {**CREATED, "type": like("type"), "types": one_of("type")}
PAID_FILTERS: Filters = {
    **CREATED,
    "charge": equal("charge"),
    "customer": equal("customer"),
    "payment_intent": equal("payment_intent"),
}


def _payment_of(payment: Thing, wanted: Thing) -> bool:
    held = payment["payment"]
    return all(held.get(name) == value for name, value in wanted.items())


INVOICE_PAYMENT_FILTERS: Filters = {
    **CREATED,
    "invoice": equal("invoice"),
    "payment": _payment_of,
    "status": equal("status"),
}

SESSIONS, SUBSCRIPTIONS, INVOICES = "/v1/checkout/sessions", "/v1/subscriptions", "/v1/invoices"
CUSTOMER_WRITES = (*customers.FIELDS, "metadata")
SESSION_WRITES = (
    *checkout.MODE_ONLY,
    *("cancel_url", "client_reference_id", "customer", "customer_email", "expires_at"),
    *("line_items", "locale", "mode", "payment_method_types", "success_url", "ui_mode"),
)
PRODUCT_WRITES = ("active", "description", "images", "metadata", "name", "unit_label")
PRICE_WRITES = (
    *("active", "currency", "lookup_key", "nickname", "product", "product_data"),
    *("recurring", "tax_behavior", "unit_amount", "unit_amount_decimal"),
)
SUBSCRIPTION_WRITES = ("cancel_at_period_end", "cancellation_details", "description")


def _listing(kind: str, url: str, params: Any, filters: Filters) -> Endpoint:
    return _endpoint("GET", url, params, _list(kind, url, filters), (*PAGING, *filters))


ENDPOINTS = (
    _endpoint("GET", "/v1/account", p.AccountRetrieveCurrentParams, _account),
    _endpoint("POST", "/v1/customers", p.CustomerCreateParams, customers.create, CUSTOMER_WRITES),
    _listing(
        "customer", "/v1/customers", p.CustomerListParams, {**CREATED, "email": equal("email")}
    ),
    _endpoint("GET", "/v1/customers/{id}", p.CustomerRetrieveParams, customers.retrieve),
    _endpoint(
        "POST", "/v1/customers/{id}", p.CustomerUpdateParams, customers.update, CUSTOMER_WRITES
    ),
    _endpoint("DELETE", "/v1/customers/{id}", p.CustomerDeleteParams, customers.delete),
    _endpoint(
        "POST", "/v1/products", p.ProductCreateParams, catalog.create_product, PRODUCT_WRITES
    ),
    _listing(
        "product", "/v1/products", p.ProductListParams, {**CREATED, "active": equal("active")}
    ),
    _endpoint("GET", "/v1/products/{id}", p.ProductRetrieveParams, _get("product")),
    _endpoint(
        "POST", "/v1/products/{id}", p.ProductUpdateParams, catalog.update_product, PRODUCT_WRITES
    ),
    _endpoint("POST", "/v1/prices", p.PriceCreateParams, catalog.create_price, PRICE_WRITES),
    _listing(
        "price",
        "/v1/prices",
        p.PriceListParams,
        {
            **CREATED,
            "active": equal("active"),
            "currency": equal("currency"),
            "lookup_keys": one_of("lookup_key"),
            "product": equal("product"),
            "type": equal("type"),
        },
    ),
    _endpoint("GET", "/v1/prices/{id}", p.PriceRetrieveParams, _get("price")),
    _endpoint(
        "POST",
        "/v1/prices/{id}",
        p.PriceUpdateParams,
        catalog.update_price,
        ("active", "lookup_key", "nickname"),
    ),
    _endpoint(
        "POST", SESSIONS, checkout_params.SessionCreateParams, checkout.create, SESSION_WRITES
    ),
    _listing("checkout.session", SESSIONS, checkout_params.SessionListParams, SESSION_FILTERS),
    _endpoint(
        "GET",
        f"{SESSIONS}/{{id}}",
        checkout_params.SessionRetrieveParams,
        _get("checkout.session"),
    ),
    _endpoint(
        "POST",
        f"{SESSIONS}/{{id}}",
        checkout_params.SessionUpdateParams,
        _metadata("checkout.session", None),
        (),
    ),
    _endpoint(
        "GET",
        f"{SESSIONS}/{{id}}/line_items",
        checkout_params.SessionListLineItemsParams,
        _session_items,
    ),
    _endpoint(
        "POST", f"{SESSIONS}/{{id}}/expire", checkout_params.SessionExpireParams, checkout.expire
    ),
    _listing("payment_intent", "/v1/payment_intents", p.PaymentIntentListParams, PAID_FILTERS),
    _endpoint(
        "GET", "/v1/payment_intents/{id}", p.PaymentIntentRetrieveParams, _get("payment_intent")
    ),
    _listing("charge", "/v1/charges", p.ChargeListParams, PAID_FILTERS),
    _endpoint("GET", "/v1/charges/{id}", p.ChargeRetrieveParams, _get("charge")),
    _endpoint(
        "POST",
        "/v1/refunds",
        p.RefundCreateParams,
        returns.refund,
        ("amount", "charge", "payment_intent", "reason"),
    ),
    _listing("refund", "/v1/refunds", p.RefundListParams, PAID_FILTERS),
    _endpoint("GET", "/v1/refunds/{id}", p.RefundRetrieveParams, _get("refund")),
    _endpoint("POST", "/v1/refunds/{id}", p.RefundUpdateParams, _refund_metadata),
    _listing("dispute", "/v1/disputes", p.DisputeListParams, PAID_FILTERS),
    _endpoint("GET", "/v1/disputes/{id}", p.DisputeRetrieveParams, _get("dispute")),
    _endpoint("POST", "/v1/disputes/{id}/close", p.DisputeCloseParams, returns.close_dispute),
    _endpoint(
        "GET",
        SUBSCRIPTIONS,
        p.SubscriptionListParams,
        _subscriptions,
        (*PAGING, *SUBSCRIPTION_FILTERS),
    ),
    _endpoint("GET", f"{SUBSCRIPTIONS}/{{id}}", p.SubscriptionRetrieveParams, _get("subscription")),
    _endpoint(
        "POST",
        f"{SUBSCRIPTIONS}/{{id}}",
        p.SubscriptionUpdateParams,
        subscriptions.update,
        SUBSCRIPTION_WRITES,
    ),
    _endpoint(
        "DELETE", f"{SUBSCRIPTIONS}/{{id}}", p.SubscriptionCancelParams, subscriptions.cancel, ()
    ),
    _endpoint(
        "POST",
        f"{INVOICES}/create_preview",
        p.InvoiceCreatePreviewParams,
        subscriptions.preview,
        ("customer", "subscription"),
    ),
    _listing("invoice", INVOICES, p.InvoiceListParams, INVOICE_FILTERS),
    _endpoint("GET", f"{INVOICES}/{{id}}", p.InvoiceRetrieveParams, _get("invoice")),
    _endpoint("GET", f"{INVOICES}/{{id}}/lines", p.InvoiceListLinesParams, _invoice_lines),
    _endpoint("POST", f"{INVOICES}/{{id}}/finalize", p.InvoiceFinalizeInvoiceParams, _finalize, ()),
    _endpoint(
        "POST",
        f"{INVOICES}/{{id}}/pay",
        p.InvoicePayParams,
        _pay,
        ("off_session", "paid_out_of_band"),
    ),
    _endpoint(
        "POST", f"{INVOICES}/{{id}}/void", p.InvoiceVoidInvoiceParams, _closing(invoices.void)
    ),
    _endpoint(
        "POST",
        f"{INVOICES}/{{id}}/mark_uncollectible",
        p.InvoiceMarkUncollectibleParams,
        _closing(invoices.mark_uncollectible),
    ),
    _listing(
        "invoice_payment",
        "/v1/invoice_payments",
        p.InvoicePaymentListParams,
        INVOICE_PAYMENT_FILTERS,
    ),
    _endpoint(
        "GET", "/v1/invoice_payments/{id}", p.InvoicePaymentRetrieveParams, _get("invoice_payment")
    ),
    _endpoint(
        "POST",
        "/v1/billing_portal/sessions",
        portal_params.SessionCreateParams,
        portal.create,
        ("customer", "locale", "return_url"),
    ),
    _listing("event", "/v1/events", p.EventListParams, EVENT_FILTERS),
    _endpoint("GET", "/v1/events/{id}", p.EventRetrieveParams, _get("event")),
)


def find_endpoint(method: str, path: str) -> tuple[Endpoint, Thing]:
    """Raises `Problem` (404) for what Stripe has not, or the stand-in not."""
    for endpoint in ENDPOINTS:
        match = endpoint.path.match(path)
        if match and endpoint.method == method:
            return endpoint, match.groupdict()
    raise Problem(
        f"Unrecognized request URL ({method}: {path}). The stand-in for Stripe does not have it.",
        status=404,
    )
