"""Holds an object against the classes of Stripe's library, field by field."""

from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, ClassVar, ForwardRef, Literal, Union, get_args, get_origin

import stripe

from deploy.embedded.stripe.shapes import ABSENT, CLASSES

LATER = {
    "BalanceTransaction": stripe.BalanceTransaction,
    "Charge": stripe.Charge,
    "InvoiceLineItem": stripe.InvoiceLineItem,
    "SubscriptionItem": stripe.SubscriptionItem,
    "Plan": stripe.Plan,
    "Price": stripe.Price,
    "InvoicePayment": stripe.InvoicePayment,
    "LineItem": stripe.LineItem,
    "Refund": stripe.Refund,
    "Subscription": stripe.Subscription,
}


def faults(thing: dict[str, Any]) -> list[str]:
    """What Stripe would not have answered like this; empty is good."""
    if thing.get("deleted"):
        return []
    return _of_class(thing, CLASSES[thing["object"]], thing["object"])


def _of_class(thing: dict[str, Any], described: type, path: str) -> list[str]:
    fields = {
        name: hint
        for name, hint in described.__annotations__.items()
        if get_origin(hint) is not ClassVar
    }
    found = [f"{path}.{name} is none of Stripe's" for name in thing if name not in fields]
    for name, hint in fields.items():
        if name in thing:
            found += _fits(thing[name], hint, f"{path}.{name}")
        elif not _may_be_null(hint) and name not in ABSENT:
            found.append(f"{path}.{name} is missing")
    return found


def _may_be_null(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)


def _fits(value: Any, hint: Any, path: str) -> list[str]:
    origin = get_origin(hint)
    choices = get_args(hint) if origin in (Union, UnionType) else (hint,)
    literals = [choice for choice in choices if get_origin(choice) is Literal]
    words = [word for literal in literals for word in get_args(literal)]
    if words:
        allowed = [*words, None] if NoneType in choices else words
        return [] if value in allowed else [f"{path} is {value!r}, not one of {words}"]
    reasons = [_one(value, choice, path) for choice in choices]
    return [] if [] in reasons else max(reasons, key=len)


def _one(value: Any, hint: Any, path: str) -> list[str]:
    origin = get_origin(hint)
    wrong = [f"{path} is {value!r}, not {hint}"]
    if isinstance(hint, ForwardRef | str):
        later = hint.__forward_arg__ if isinstance(hint, ForwardRef) else hint
        hint = LATER.get(later, hint)
    if hint is NoneType:
        return [] if value is None else wrong
    if hint in (str, bool, int, float):
        return [] if type(value) is hint else wrong
    if getattr(hint, "__name__", "") == "Decimal":
        return [] if isinstance(value, str | Decimal) else wrong
    if origin is list and isinstance(value, list):
        return [why for part in value for why in _fits(part, get_args(hint)[0], f"{path}[]")]
    return _of_hash(value, hint, path) if isinstance(value, dict) else wrong


def _of_hash(value: dict[str, Any], hint: Any, path: str) -> list[str]:
    origin = get_origin(hint)
    name = getattr(origin or hint, "__name__", "")
    wrong = [f"{path} is {value!r}, not {hint}"]
    if origin is dict:
        return []
    if name == "ListObject":
        return _fits(value["data"], list[get_args(hint)[0]], f"{path}.data")  # type: ignore[misc]
    if name == "UntypedStripeObject":
        (kind,) = get_args(hint)
        are_right = kind is Any or all(isinstance(word, kind) for word in value.values())
        return [] if are_right else wrong
    return _of_class(value, hint, path) if isinstance(hint, type) else wrong
