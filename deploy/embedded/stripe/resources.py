"""Which requests there are, with the parameters of each and who answers it.

`params` are the classes of Stripe's own library, which say what a request may carry; `supported`
names what the stand-in acts on (None: all of it).
"""

import re
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
    portal,
    returns,
    subscriptions,
)
from deploy.embedded.stripe.answers import PAGING, Filters, equal, one_of
from deploy.embedded.stripe.handlers import (
    CREATED,
    EVENT_FILTERS,
    INVOICE_FILTERS,
    INVOICE_PAYMENT_FILTERS,
    PAID_FILTERS,
    SESSION_FILTERS,
    SUBSCRIPTION_FILTERS,
    Handler,
    account,
    closing,
    finalize_invoice,
    get,
    invoice_lines,
    list_subscriptions,
    listed,
    pay_invoice,
    session_items,
    update_metadata,
)
from deploy.embedded.stripe.problems import Problem
from deploy.embedded.stripe.store import Thing


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
CANCEL_WRITES = ("cancellation_details", "invoice_now", "prorate")
SUBSCRIPTION_WRITES = ("cancel_at_period_end", "cancellation_details", "description")


def _listing(kind: str, url: str, params: Any, filters: Filters) -> Endpoint:
    return _endpoint("GET", url, params, listed(kind, url, filters), (*PAGING, *filters))


ENDPOINTS = (
    _endpoint("GET", "/v1/account", p.AccountRetrieveCurrentParams, account),
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
    _endpoint("GET", "/v1/products/{id}", p.ProductRetrieveParams, get("product")),
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
    _endpoint("GET", "/v1/prices/{id}", p.PriceRetrieveParams, get("price")),
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
        get("checkout.session"),
    ),
    _endpoint(
        "POST",
        f"{SESSIONS}/{{id}}",
        checkout_params.SessionUpdateParams,
        update_metadata("checkout.session", None),
        (),
    ),
    _endpoint(
        "GET",
        f"{SESSIONS}/{{id}}/line_items",
        checkout_params.SessionListLineItemsParams,
        session_items,
    ),
    _endpoint(
        "POST", f"{SESSIONS}/{{id}}/expire", checkout_params.SessionExpireParams, checkout.expire
    ),
    _listing("payment_intent", "/v1/payment_intents", p.PaymentIntentListParams, PAID_FILTERS),
    _endpoint(
        "GET", "/v1/payment_intents/{id}", p.PaymentIntentRetrieveParams, get("payment_intent")
    ),
    _listing("charge", "/v1/charges", p.ChargeListParams, PAID_FILTERS),
    _endpoint("GET", "/v1/charges/{id}", p.ChargeRetrieveParams, get("charge")),
    _endpoint(
        "POST",
        "/v1/refunds",
        p.RefundCreateParams,
        returns.refund,
        ("amount", "charge", "payment_intent", "reason"),
    ),
    _listing("refund", "/v1/refunds", p.RefundListParams, PAID_FILTERS),
    _endpoint("GET", "/v1/refunds/{id}", p.RefundRetrieveParams, get("refund")),
    _endpoint(
        "POST",
        "/v1/refunds/{id}",
        p.RefundUpdateParams,
        update_metadata("refund", "refund.updated"),
    ),
    _listing("dispute", "/v1/disputes", p.DisputeListParams, PAID_FILTERS),
    _endpoint("GET", "/v1/disputes/{id}", p.DisputeRetrieveParams, get("dispute")),
    _endpoint("POST", "/v1/disputes/{id}/close", p.DisputeCloseParams, returns.close_dispute),
    _endpoint(
        "GET",
        SUBSCRIPTIONS,
        p.SubscriptionListParams,
        list_subscriptions,
        (*PAGING, *SUBSCRIPTION_FILTERS),
    ),
    _endpoint("GET", f"{SUBSCRIPTIONS}/{{id}}", p.SubscriptionRetrieveParams, get("subscription")),
    _endpoint(
        "POST",
        f"{SUBSCRIPTIONS}/{{id}}",
        p.SubscriptionUpdateParams,
        subscriptions.update,
        SUBSCRIPTION_WRITES,
    ),
    _endpoint(
        "DELETE",
        f"{SUBSCRIPTIONS}/{{id}}",
        p.SubscriptionCancelParams,
        subscriptions.cancel,
        CANCEL_WRITES,
    ),
    _endpoint(
        "POST",
        f"{INVOICES}/create_preview",
        p.InvoiceCreatePreviewParams,
        subscriptions.preview,
        ("customer", "subscription"),
    ),
    _listing("invoice", INVOICES, p.InvoiceListParams, INVOICE_FILTERS),
    _endpoint("GET", f"{INVOICES}/{{id}}", p.InvoiceRetrieveParams, get("invoice")),
    _endpoint("GET", f"{INVOICES}/{{id}}/lines", p.InvoiceListLinesParams, invoice_lines),
    _endpoint(
        "POST", f"{INVOICES}/{{id}}/finalize", p.InvoiceFinalizeInvoiceParams, finalize_invoice, ()
    ),
    _endpoint(
        "POST",
        f"{INVOICES}/{{id}}/pay",
        p.InvoicePayParams,
        pay_invoice,
        ("off_session", "paid_out_of_band"),
    ),
    _endpoint(
        "POST", f"{INVOICES}/{{id}}/void", p.InvoiceVoidInvoiceParams, closing(invoices.void)
    ),
    _endpoint(
        "POST",
        f"{INVOICES}/{{id}}/mark_uncollectible",
        p.InvoiceMarkUncollectibleParams,
        closing(invoices.mark_uncollectible),
    ),
    _listing(
        "invoice_payment",
        "/v1/invoice_payments",
        p.InvoicePaymentListParams,
        INVOICE_PAYMENT_FILTERS,
    ),
    _endpoint(
        "GET", "/v1/invoice_payments/{id}", p.InvoicePaymentRetrieveParams, get("invoice_payment")
    ),
    _endpoint(
        "POST",
        "/v1/billing_portal/sessions",
        portal_params.SessionCreateParams,
        portal.create,
        ("customer", "locale", "return_url"),
    ),
    _listing("event", "/v1/events", p.EventListParams, EVENT_FILTERS),
    _endpoint("GET", "/v1/events/{id}", p.EventRetrieveParams, get("event")),
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
