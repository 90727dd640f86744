"""What ought to be true of every purchase, by what lies in Stripe: a second opinion.

Written from the design of bought credits alone. It reads the stand-in's raw objects (never the
answers of its API) and imports nothing of the control plane; the machine compares.

The rule: of what a payment was for, all is granted but `floor(credits * taken / paid)`, where taken
is what was refunded or is held back by a dispute that is not won. The oldest renewal that is not
paid yet is in place and awaits its payment while the subscription lives.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Thing = Mapping[str, Any]

LIVE = ("active", "past_due", "trialing")
LEAD_S = 3_600
"""How long before a period's end the next one's credits may be in place."""


@dataclass(frozen=True)
class Sale:
    """What was sold, as the buyer was told."""

    purchase_id: str
    organization_id: str
    pool: tuple[str, str]
    is_monthly: bool
    quantity: int
    package_credits_micro: int
    package_price_minor: int

    @property
    def credits_micro(self) -> int:
        return self.quantity * self.package_credits_micro


@dataclass
class Expected:
    """`confirmed_micro` is granted less revoked, for money that was paid. `awaiting_micro` has all
    values that are right: a renewal is placed ahead within its last hour, not at a moment."""

    states: frozenset[str]
    confirmed_micro: int = 0
    awaiting_micro: frozenset[int] = frozenset({0})
    paid_invoices: frozenset[str] = frozenset()
    subscription: tuple[str, bool] | None = None
    """Status, and whether it ends with its period."""


@dataclass
class Objects:
    """Everything that Stripe has, by kind."""

    by_kind: Mapping[str, list[Thing]] = field(default_factory=dict)

    def all(self, kind: str, **equal: object) -> list[Thing]:
        things = self.by_kind.get(kind, [])
        return [each for each in things if all(each.get(n) == v for n, v in equal.items())]

    def get(self, kind: str, identifier: str | None) -> Thing | None:
        return next(iter(self.all(kind, id=identifier)), None)


KINDS = (
    "checkout.session",
    "payment_intent",
    "charge",
    "refund",
    "dispute",
    "subscription",
    "invoice",
    "invoice_payment",
)


def session_of(objects: Objects, purchase_id: str) -> Thing | None:
    """The one session of a purchase; two would be two chances to pay."""
    sessions = [
        each
        for each in objects.all("checkout.session")
        if each["metadata"].get("metering_purchase") == purchase_id
    ]
    assert len(sessions) <= 1, f"{purchase_id} has {len(sessions)} sessions"
    return sessions[0] if sessions else None


def expected(objects: Objects, sale: Sale, now_s: int) -> Expected:
    session = session_of(objects, sale.purchase_id)
    if session is None:
        # Nobody could pay: whether it waits to be begun or was given up, no credits are due.
        return Expected(frozenset({"created", "awaiting_payment", "expired", "failed"}))
    if sale.is_monthly:
        return _monthly(objects, sale, session, now_s)
    return _one_time(objects, sale, session)


def _one_time(objects: Objects, sale: Sale, session: Thing) -> Expected:
    invoice = objects.get("invoice", session["invoice"])
    shown = frozenset({invoice["id"]} if invoice and invoice["status"] == "paid" else ())
    if session["status"] == "expired":
        return Expected(frozenset({"expired"}))
    if session["status"] == "open":
        return Expected(frozenset({"awaiting_payment"}))
    if session["payment_status"] in ("paid", "no_payment_required"):
        charges = _charges(objects, [session["payment_intent"]])
        net = _net(objects, sale.credits_micro, charges)
        return Expected(frozenset({"paid"}), net, paid_invoices=shown)
    intent = objects.get("payment_intent", session["payment_intent"])
    is_on_its_way = intent is not None and intent["status"] == "processing"
    return Expected(frozenset({"awaiting_payment" if is_on_its_way else "failed"}))


def _monthly(objects: Objects, sale: Sale, session: Thing, now_s: int) -> Expected:
    if session["status"] == "expired":
        return Expected(frozenset({"expired"}))
    subscription = objects.get("subscription", session["subscription"])
    if session["status"] == "open" or subscription is None:
        return Expected(frozenset({"awaiting_payment"}))
    confirmed = 0
    unpaid: list[int] = []
    shown = set()
    is_live = subscription["status"] in LIVE
    for invoice in _invoices(objects, subscription["id"]):
        sold_lines = [line for line in invoice["lines"]["data"] if line["amount"] > 0]
        credits = sale.credits_micro * len(sold_lines)
        if invoice["status"] == "paid":
            shown.add(invoice["id"])
            confirmed += _net(objects, credits, _charges_of_invoice(objects, invoice))
        elif invoice["status"] in ("draft", "open"):
            is_renewal = invoice["billing_reason"] == "subscription_cycle"
            unpaid += [credits] if is_renewal and is_live else []
    waits = {unpaid[0] if unpaid else 0}
    if is_live and not unpaid and not subscription["cancel_at_period_end"]:
        ends_s = min(each["current_period_end"] for each in subscription["items"]["data"])
        if ends_s - LEAD_S <= now_s:
            waits.add(sale.credits_micro)
    return Expected(
        frozenset({"paid"} if shown else {"awaiting_payment", "failed", "expired"}),
        confirmed,
        frozenset(waits),
        frozenset(shown),
        (subscription["status"], subscription["cancel_at_period_end"]),
    )


def _invoices(objects: Objects, subscription_id: str) -> list[Thing]:
    def of(invoice: Thing) -> str | None:
        details = (invoice["parent"] or {}).get("subscription_details") or {}
        subscription: str | None = details.get("subscription")
        return subscription

    return [each for each in objects.all("invoice") if of(each) == subscription_id]


def _charges_of_invoice(objects: Objects, invoice: Thing) -> list[Thing]:
    payments = objects.all("invoice_payment", invoice=invoice["id"])
    return _charges(objects, [each["payment"]["payment_intent"] for each in payments])


def _charges(objects: Objects, intents: Iterable[str | None]) -> list[Thing]:
    return [
        charge
        for intent in intents
        for charge in objects.all("charge", payment_intent=intent, status="succeeded")
    ]


def _net(objects: Objects, credits_micro: int, charges: list[Thing]) -> int:
    paid = sum(charge["amount"] for charge in charges)
    taken = sum(min(charge["amount"], taken_of(objects, charge["id"])) for charge in charges)
    return credits_micro - credits_micro * taken // paid


def taken_of(objects: Objects, charge_id: str) -> int:
    """Refunded and not failed, and held back by banks."""
    refunds = objects.all("refund", charge=charge_id)
    disputes = objects.all("dispute", charge=charge_id)
    return sum(
        refund["amount"] for refund in refunds if refund["status"] not in ("failed", "canceled")
    ) + sum(
        dispute["amount"]
        for dispute in disputes
        if dispute["status"] != "won" and not dispute["status"].startswith("warning_")
    )
