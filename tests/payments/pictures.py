"""Pictures of a provider in a few words, for text tables.

One-time: `paid`, `open`, `paid r=1 d1=o2`: the price of one package is refunded, that of two is in
a dispute that is open (`o`, won `w`, lost `l`); `r=5m` are minor units. Monthly: words with a
colon are invoices, those with an `@` the subscription and its period: `active@2 1:paid 2:open`;
changes of an invoice follow it.
"""

from dataclasses import replace
from typing import Any

from api.payments.seen import Dispute, DisputeState, Payment, Seen, Session
from tests.payments.purchases import MONTH, PRICE, invoice, paid_session, subscription

SESSIONS: dict[str, dict[str, Any]] = {
    "paid": {},
    "free": {"payment_status": "no_payment_required"},
    "open": {"status": "open", "payment_status": "unpaid"},
    "unpaid": {"payment_status": "unpaid"},
    "failed": {"payment_status": "unpaid", "has_failed": True, "message": "Declined."},
    "expired": {"status": "expired", "payment_status": "unpaid"},
    "other": {"id": "cs_2"},
}
DISPUTES: dict[str, DisputeState] = {"o": "open", "w": "won", "l": "lost"}
LONG = {"past": "past_due", "expired": "incomplete_expired", "update": "subscription_update"}
UNPAID = ("open", "unpaid", "failed", "expired", "free")


def payment(words: list[str], payment_id: str = "py_1", paid: int = 3 * PRICE) -> Payment:
    """`p=` was paid, `r=` refunded, `d1=` disputed."""
    refunded, disputes = 0, []
    for word in words:
        name, value = word.split("=")
        if name == "r":
            refunded = _minor(value)
        elif name == "p":
            paid = _minor(value)
        else:
            disputes.append(Dispute(f"dp_{name[1:]}", _minor(value[1:]), DISPUTES[value[0]]))
    return Payment(payment_id, paid, refunded, tuple(disputes))


def _minor(text: str) -> int:
    return int(text[:-1]) if text.endswith("m") else PRICE * int(text)


def one_time(text: str) -> Seen:
    """A picture of a one-time purchase; `none`: the provider knows no session."""
    what, *words = text.split()
    if what == "none":
        return Seen("stripe")
    changes = dict(SESSIONS[what])
    of_payment = []
    for word in words:
        name, value = word.split("=")
        if name == "quantity":
            changes["quantity"] = int(value)
        elif name == "amount":
            changes["subtotal_minor"] = int(value)
        elif name == "currency":
            changes[name] = value
        else:
            of_payment.append(word)
    changes["payments"] = () if what in UNPAID else (payment(of_payment),)
    return Seen("stripe", paid_session(**changes))


def monthly(text: str) -> Seen:
    """`active@2 1:paid 2:open`: in its second period, whose invoice is open.

    After the status `-` stands for one that will not be renewed; `none` is no session, `gone` says
    that the customer was deleted, too.
    """
    found, is_deleted = None, False
    session: Session | None = paid_session(payments=())
    invoices: list[tuple[int, str, list[str]]] = []
    for word in text.split():
        if "=" in word:
            invoices[-1][2].append(word)
        elif ":" in word:
            number, status = word.split(":")
            invoices.append((int(number), status, []))
        elif "@" in word:
            status, period = word.split("@")
            is_ending, status = status.endswith("-"), status.strip("-")
            status = LONG.get(status, status)
            found = subscription(int(period), status, cancel_at_period_end=is_ending)
            if found.status == "canceled":
                found = replace(found, ended_at=found.period_end)
        elif word in ("gone", "none"):
            session = None
            is_deleted = word == "gone"
        else:
            session = paid_session(**(SESSIONS[word] | {"payments": ()}))
    listed = tuple(_invoice(*each) for each in invoices)
    return Seen("stripe", session, found, listed, is_deleted)


def _invoice(number: int, status: str, words: list[str]) -> Any:
    line: dict[str, Any] = {}
    changes: dict[str, Any] = {"line": line}
    of_payment = []
    for word in words:
        name, value = word.split("=")
        if name == "quantity":
            line[name] = int(value)
        elif name == "amount":
            line["amount_minor"] = int(value)
        elif name == "currency":
            line[name] = value
        elif name == "line":
            line["id"] = value
        elif name == "days":
            start = invoice(number, "open").lines[0].period_start
            line["period_end"] = start + int(value) * MONTH / 30
        elif name == "reason":
            changes["billing_reason"] = LONG.get(value, value)
        elif name == "proration":
            line["is_proration"] = True
        else:
            of_payment.append(word)
    payments = (payment(of_payment, f"py_{number}"),) if status == "paid" else ()
    if "p=0" in of_payment:
        payments, changes["amount_paid_minor"] = (), 0
    return invoice(number, status, *payments, **changes)
