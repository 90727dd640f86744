"""From a partner's answer to `Seen`. Pure.

What contradicts itself or the contract is `PartnerUnclear`: nothing is settled by it, and the look
is tried again with an alarm. What fits the contract but not what was sold is the settlement's part.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from api.payments import seen
from api.payments.partners.answers import PartnerUnclear, clean_message
from api.payments.seen import Seen
from schemas import partners as contract

YEARS: Final = range(2000, 2200)
NO_CHARGE: Final = ""
"""Id of a session that never came to be: the partner made no charge, and will make none."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known here of the purchase; `first_charge_id` None until one is known."""

    organization_id: str
    kind: str
    first_charge_id: str | None = None


def seen_of(provider: str, found: contract.Purchase, expected: Expected) -> Seen:
    """Everything that the partner says about one purchase. Raises PartnerUnclear."""
    kind = expected.kind
    _check(found, expected.organization_id, kind)
    first = found.charges[-1]
    if len(found.charges) == contract.CHARGES_MAX and first.charge_id != expected.first_charge_id:
        # The first one is no longer among the newest.
        invoices = tuple(_invoice(charge, kind, is_first=False) for charge in found.charges)
        return Seen(provider, None, _subscription(found), invoices)
    if expected.first_charge_id not in (None, first.charge_id):
        raise PartnerUnclear(f"the first charge was {expected.first_charge_id} before")
    payments = _payments(first) if kind == "one_time" else ()
    is_paid = first.status == "succeeded"
    session = seen.Session(
        first.charge_id,
        "complete",
        "paid" if is_paid else "unpaid",
        first.amount_minor,
        first.currency,
        first.packages,
        has_failed=first.status == "declined",
        message=clean_message(first.message) if first.status == "declined" else "",
        payments=payments,
    )
    invoices = tuple(_invoice(charge, kind, is_first=charge is first) for charge in found.charges)
    return Seen(provider, session, _subscription(found), invoices)


def never_charged(provider: str, message: str, *, has_failed: bool) -> Seen:
    """The partner knows nothing of the purchase and never will: it refused, or time is up."""
    session = seen.Session(
        NO_CHARGE, "expired", "unpaid", 0, "", 0, has_failed=has_failed, message=message
    )
    return Seen(provider, session)


def _check(found: contract.Purchase, organization_id: str, kind: str) -> None:
    if not found.charges:
        raise PartnerUnclear("the purchase has no charge")
    ids = {charge.charge_id for charge in found.charges}
    if len(ids) != len(found.charges):
        raise PartnerUnclear("a charge is listed twice")
    subscription = found.subscription
    if (subscription is None) != (kind == "one_time"):
        raise PartnerUnclear("a monthly purchase has a subscription, a one-time purchase has none")
    if kind == "one_time" and len(ids) > 1:
        raise PartnerUnclear("a one-time purchase was charged more than once")
    if subscription is not None and subscription.purchase_id != found.purchase_id:
        raise PartnerUnclear("the subscription is that of another purchase")
    for charge in found.charges:
        if (charge.purchase_id, charge.organization_id) != (found.purchase_id, organization_id):
            raise PartnerUnclear(f"charge {charge.charge_id} is of another purchase")
        if charge.refunded_minor > charge.amount_minor:
            raise PartnerUnclear(f"more was refunded of {charge.charge_id} than was charged")
        _check_times(charge.created_at, charge.updated_at, charge.paid_at)
        if subscription is not None:
            _check_period(charge, subscription)


def _check_period(charge: contract.Charge, subscription: contract.Subscription) -> None:
    if charge.subscription_id != subscription.subscription_id:
        raise PartnerUnclear(f"charge {charge.charge_id} is of another subscription")
    if charge.period_start is None or charge.period_end is None:
        raise PartnerUnclear(f"charge {charge.charge_id} has no period")

    _check_times(charge.period_start, charge.period_end)
    _check_times(subscription.current_period_start, subscription.current_period_end)
    _check_times(subscription.canceled_at)


def _check_times(*times: datetime | None) -> None:
    """Of our days, so that nothing that counts with them runs over."""
    if any(at is not None and at.year not in YEARS for at in times):
        raise PartnerUnclear("a time is not of our days")


def _payments(charge: contract.Charge) -> tuple[seen.Payment, ...]:
    if charge.status != "succeeded":
        return ()
    return (seen.Payment(charge.charge_id, charge.amount_minor, charge.refunded_minor),)


def _invoice(charge: contract.Charge, kind: str, *, is_first: bool) -> seen.Invoice:
    status: dict[str, seen.InvoiceStatus] = {"succeeded": "paid", "pending": "open"}
    is_paid = charge.status == "succeeded"
    reason = ""
    lines: tuple[seen.Line, ...] = ()
    if kind == "monthly":
        reason = "subscription_create" if is_first else "subscription_cycle"
        assert charge.period_start is not None
        assert charge.period_end is not None
        # The line has the invoice's id, by which its grant is `partner:<name>:<charge id>`.
        lines = (
            seen.Line(
                charge.charge_id,
                charge.packages,
                charge.amount_minor,
                charge.currency,
                charge.period_start,
                charge.period_end,
            ),
        )
    return seen.Invoice(
        charge.charge_id,
        status.get(charge.status, "void"),
        reason,
        charge.currency,
        charge.amount_minor if is_paid else 0,
        charge.created_at,
        lines,
        _payments(charge),
        clean_message(charge.invoice_number),
        (charge.paid_at or charge.created_at) if is_paid else None,
        _page(charge.invoice_url),
        _page(charge.invoice_pdf_url),
    )


def _subscription(found: contract.Purchase) -> seen.Subscription | None:
    subscription = found.subscription
    if subscription is None:
        return None
    status: str = subscription.status
    if status != "canceled" and all(each.status != "succeeded" for each in found.charges):
        # Nothing was ever paid: as Stripe calls it, not yet complete.
        status = "incomplete"
    newest = found.charges[0]
    ended_at = subscription.canceled_at or newest.updated_at
    return seen.Subscription(
        subscription.subscription_id,
        status,
        subscription.cancel_at_period_end,
        newest.packages,
        subscription.current_period_start,
        subscription.current_period_end,
        ended_at if status == "canceled" else None,
    )


def _page(url: str) -> str | None:
    """An address that a buyer's browser may be sent to, or none."""
    try:
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" and bool(parts.hostname) and parts.username is None
    except ValueError:
        return None
    is_printable = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    return url if is_safe and is_printable else None
