"""An object of Stripe's with every field of the pinned API version, empty.

The library's classes say which fields there are. Nullable ones are null and lists empty, so that
nobody's code meets a field missing here that Stripe sends.
"""

import copy
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

import stripe
from stripe.billing_portal import Session as PortalSession
from stripe.checkout import Session as CheckoutSession

API_VERSION = "2026-10-28.endive"

CLASSES: dict[str, type] = {
    "account": stripe.Account,
    "billing_portal.session": PortalSession,
    "charge": stripe.Charge,
    "checkout.session": CheckoutSession,
    "customer": stripe.Customer,
    "dispute": stripe.Dispute,
    "event": stripe.Event,
    "invoice": stripe.Invoice,
    "invoice_payment": stripe.InvoicePayment,
    "item": stripe.LineItem,
    "line_item": stripe.InvoiceLineItem,
    "payment_intent": stripe.PaymentIntent,
    "plan": stripe.Plan,
    "price": stripe.Price,
    "product": stripe.Product,
    "refund": stripe.Refund,
    "subscription": stripe.Subscription,
    "subscription_item": stripe.SubscriptionItem,
}

ABSENT = frozenset(
    (
        *("account", "cash_balance", "confirmation_secret", "context", "currency_options"),
        *("customer_account", "deleted", "invoice_credit_balance", "line_items", "payments"),
        *("refunds", "sources", "subscriptions", "tax", "tax_ids", "threshold_reason", "tiers"),
    )
)
"""Only there when they are asked for (`expand`), or when they say something."""

NO_TAX = {"enabled": False, "liability": None, "provider": None, "status": None}
NO_ADDRESS = {
    "city": None,
    "country": None,
    "line1": None,
    "line2": None,
    "postal_code": None,
    "state": None,
}


def blank(kind: str, **values: Any) -> dict[str, Any]:
    fields = copy.deepcopy(_empty(kind))
    if unknown := set(values) - set(CLASSES[kind].__annotations__):
        raise AssertionError(f"Stripe's {kind} has no {sorted(unknown)}")
    return {**fields, "object": kind, **values}


@cache
def _empty(kind: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, hint in CLASSES[kind].__annotations__.items():
        origin: Any = get_origin(hint)
        if name in ABSENT or origin is ClassVar:
            continue
        if origin in (Union, UnionType) and NoneType in get_args(hint):
            fields[name] = {} if name == "metadata" else None
        elif origin is list:
            fields[name] = []
        elif name == "metadata":
            fields[name] = {}
        elif name == "livemode":
            fields[name] = False
    return fields


def list_of(things: list[dict[str, Any]], url: str, *, has_more: bool = False) -> dict[str, Any]:
    return {"object": "list", "data": things, "has_more": has_more, "url": url}
