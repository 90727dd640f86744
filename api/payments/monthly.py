"""What a monthly purchase entitles to: one grant a line of its invoices, for the line's period.

A renewal's credits may be in place before its invoice is paid, and even before it exists: the line
that comes for the same period adopts that grant. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from api.payments.entitlement import Entitlement, Money, Verdict, misfit, money, why_taken
from api.payments.seen import Invoice, Line, Seen
from api.payments.terms import (
    Held,
    HeldGrant,
    Identity,
    Options,
    Problem,
    Sold,
    SubscriptionRow,
)

FIRST: Final = "subscription_create"
RENEWAL: Final = "subscription_cycle"
LIVE: Final = frozenset({"active", "past_due", "trialing"})
"""States in which the next invoice is still hoped for. In `unpaid` the provider has given up."""
DEAD_INVOICES: Final = frozenset({"void", "uncollectible"})
INVOICES_SEEN_MAX: Final = 100


def subscription_row(held: Held, seen: Seen, now: datetime) -> SubscriptionRow | None:
    """As it is now. Where the customer was deleted and the subscription with it, it has ended."""
    subscription = seen.subscription
    if subscription is not None:
        return SubscriptionRow(
            subscription.id,
            subscription.status,
            subscription.cancel_at_period_end,
            subscription.period_start,
            subscription.period_end,
            subscription.ended_at,
        )
    row = held.subscription
    if row is None or not seen.is_customer_deleted or row.status == "canceled":
        return row
    return SubscriptionRow(
        row.provider_id,
        "canceled",
        row.cancel_at_period_end,
        row.current_period_start,
        row.current_period_end,
        now,
    )


def is_live(subscription: SubscriptionRow | None) -> bool:
    """Whether it may still be paid for: allowed are only the states that are known to be."""
    return (
        subscription is not None and subscription.status in LIVE and subscription.ended_at is None
    )


def may_place_ahead(held: Held, subscription_id: str, start: datetime) -> bool:
    """Whether the period that begins then may have its credits before it is billed: it comes next,
    the subscription goes on, and nothing else that was placed is still unpaid."""
    subscription = held.subscription
    return (
        subscription is not None
        and subscription.provider_id == subscription_id
        and is_live(subscription)
        and not subscription.cancel_at_period_end
        and subscription.current_period_end == start
        and not any(
            (each.awaiting_payment and each.left_micro > 0)
            or start in (each.identity.period_start, each.effective_at)
            for each in held.grants
        )
    )


def bought_lines(invoice: Invoice) -> list[Line]:
    """The lines that sell something: neither prorations nor credits nor free of charge."""
    lines = [line for line in invoice.lines if not line.is_proration and line.amount_minor > 0]
    return sorted(lines, key=lambda line: line.id)


def line_misfit(sold: Sold, line: Line) -> str:
    """What of a line does not fit what was sold, in words; empty where all does."""
    if line.period_end <= line.period_start:
        return "the period ends before it begins"
    return misfit(sold, line.quantity, line.amount_minor, line.currency)


def monthly(sold: Sold, held: Held, seen: Seen, now: datetime, options: Options) -> Verdict:
    """The rule for a monthly purchase."""
    subscription = subscription_row(held, seen, now)
    judge = _Judge(sold, held, seen, now, options, subscription)
    for invoice in sorted(seen.invoices, key=lambda each: (each.created_at, each.id)):
        judge.invoice(invoice)
    judge.placed_ahead()
    judge.lines_gone()
    state, message = _state(held, seen, subscription, judge.is_paid)
    return Verdict(state, message, tuple(judge.entitlements), tuple(judge.problems))


def _state(
    held: Held, seen: Seen, subscription: SubscriptionRow | None, is_paid: bool
) -> tuple[str, str]:
    session = seen.session
    if is_paid or held.state == "paid":
        return "paid", ""
    if session is not None and session.has_failed:
        return "failed", session.message
    is_expired = session is not None and session.status == "expired"
    if is_expired or (subscription is not None and subscription.status == "incomplete_expired"):
        return "expired", ""
    if session is None and subscription is None:
        return held.state, held.message
    return "awaiting_payment", ""


@dataclass
class _Judge:
    """Goes through the invoices once, the oldest first."""

    sold: Sold
    held: Held
    seen: Seen
    now: datetime
    options: Options
    subscription: SubscriptionRow | None
    entitlements: list[Entitlement] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    is_paid: bool = False
    _waits: str | None = None
    """The oldest renewal that is not paid and may still be. Only its credits are in place: nobody
    is given month after month on credit."""
    _of_period: dict[datetime, tuple[Invoice, Line]] = field(default_factory=dict)
    """Of each period's start, the first line that was billed for it."""
    _periods: set[datetime] = field(default_factory=set)
    """Starts of periods that have a grant: the database knows one grant for each."""

    def __post_init__(self) -> None:
        for grant in self.held.grants:
            if grant.identity.period_start is not None:
                self._periods.add(grant.identity.period_start)

    def invoice(self, invoice: Invoice) -> None:
        stated = invoice.amount_paid_minor
        paid = money(invoice.payments, stated)
        lines = bought_lines(invoice)
        if invoice.billing_reason not in (FIRST, RENEWAL):
            if invoice.status == "paid" and paid.paid_minor > paid.taken_minor:
                why = f"its billing reason is {invoice.billing_reason or 'unknown'}"
                self._not_granted(invoice, "not_sold", "it", why)
            return
        for line in lines:
            self._of_period.setdefault(line.period_start, (invoice, line))
            wrong = line_misfit(self.sold, line)
            if not wrong:
                self._line(invoice, line, paid, is_first=line is lines[0])
            elif invoice.status == "paid" and not paid.is_all_taken:
                self._not_granted(invoice, "does_not_fit", f"its line {line.id}", wrong)

    def _not_granted(self, invoice: Invoice, code: str, what: str, why: str) -> None:
        message = f"Invoice {invoice.id} is paid, but nothing was granted for {what}: {why}."
        self.problems.append(Problem("invoice", invoice.id, code, message))

    def _line(self, invoice: Invoice, line: Line, paid: Money, *, is_first: bool) -> None:
        base = self._base(invoice, line)
        credits = self.sold.credits_micro
        net, why, is_awaiting = self._net(invoice, paid, credits)
        self.is_paid |= invoice.status == "paid"
        own = invoice.id if line.id == invoice.id else f"{invoice.id}:{line.id}"
        self.entitlements.append(
            Entitlement(
                base.id if base else f"{self.sold.provider}:{own}",
                "monthly",
                credits,
                net,
                is_awaiting,
                line.period_start,
                line.period_end,
                self._identity(base, invoice, line),
                why,
                f"{self.sold.provider}:{invoice.id}",
                ("invoice", invoice.id),
                invoice.payments,
                invoice.amount_paid_minor,
                not is_awaiting or self.options.place_unpaid_renewals,
                is_first,
            )
        )

    def _net(self, invoice: Invoice, paid: Money, credits: int) -> tuple[int, str, bool]:
        """How much of the credits there ought to be, why not more, and whether they still await."""
        if invoice.status == "paid":
            return paid.left_of(credits), why_taken(invoice.payments), False
        if invoice.status in DEAD_INVOICES:
            return 0, f"invoice {invoice.id} is {invoice.status}", True
        if invoice.billing_reason == FIRST:
            return 0, f"invoice {invoice.id} is not paid", True
        if not is_live(self.subscription):
            return 0, "the subscription ended without payment", True
        self._waits = self._waits or invoice.id
        if self._waits != invoice.id:
            return 0, f"invoice {self._waits} is not paid yet", True
        return credits, "", True

    def _base(self, invoice: Invoice, line: Line) -> HeldGrant | None:
        """The grant that is held for the line, or was placed ahead for exactly its period."""
        for grant in self.held.grants:
            if (grant.identity.invoice_id, grant.identity.line_id) == (invoice.id, line.id):
                return grant
        is_taken = self._of_period[line.period_start] != (invoice, line)
        for grant in self._placed():
            fits = (
                grant.identity.period_start == line.period_start
                and grant.expires_at == line.period_end
                and grant.amount_micro == self.sold.credits_micro
            )
            if fits and not is_taken:
                return grant
        return None

    def _identity(self, base: HeldGrant | None, invoice: Invoice, line: Line) -> Identity:
        if base is not None:
            subscription_id = base.identity.subscription_id
            start = base.identity.period_start
        elif self.subscription is None or line.period_start in self._periods:
            subscription_id = start = None
        else:
            subscription_id, start = self.subscription.provider_id, line.period_start
            self._periods.add(line.period_start)
        return Identity(None, invoice.id, line.id, subscription_id, start)

    def _placed(self) -> Iterator[HeldGrant]:
        """Grants that were placed ahead and have no invoice yet."""
        for grant in self.held.grants:
            identity = grant.identity
            if identity.period_start is not None and identity.invoice_id is None:
                yield grant

    def placed_ahead(self) -> None:
        """What becomes of those that no line adopts."""
        adopted = {entitlement.grant_id for entitlement in self.entitlements}
        for grant in self._placed():
            if grant.id not in adopted:
                why = self._why_not_placed(grant)
                self._unbilled(grant, why, ("subscription", str(grant.identity.subscription_id)))

    def _why_not_placed(self, grant: HeldGrant) -> str | None:
        """Empty where it may stay and wait, None where that cannot be said."""
        start = grant.identity.period_start
        assert start is not None
        billed = self._of_period.get(start)
        if billed is not None:
            return self._why_not_billed(*billed)
        subscription = self.subscription
        if subscription is None or not is_live(subscription):
            return "the subscription ended without payment"
        if grant.expires_at is not None and grant.expires_at <= self.now:
            return "its period is over without an invoice"
        is_coming = subscription.current_period_end == start
        if is_coming and subscription.cancel_at_period_end:
            return "the subscription is not to be renewed"
        is_known = subscription.current_period_end is not None
        if is_known and not is_coming and subscription.current_period_start != start:
            return "another period is billed"
        return f"invoice {self._waits} is not paid yet" if self._waits else ""

    def _why_not_billed(self, invoice: Invoice, line: Line) -> str | None:
        if not line_misfit(self.sold, line):
            return "another period is billed"
        if invoice.status in DEAD_INVOICES:
            return f"invoice {invoice.id} is {invoice.status}"
        paid = money(invoice.payments, invoice.amount_paid_minor)
        if invoice.status == "paid":
            return why_taken(invoice.payments) if paid.is_all_taken else None
        return "" if is_live(self.subscription) else "the subscription ended without payment"

    def lines_gone(self) -> None:
        """Grants of lines that do not fit any more, or that the provider does not show any more."""
        decided = {entitlement.grant_id for entitlement in self.entitlements}
        shown = {(i.id, line.id): (i, line) for i in self.seen.invoices for line in i.lines}
        for grant in self.held.grants:
            invoice_id = grant.identity.invoice_id
            if invoice_id is None or grant.id in decided:
                continue
            paid_by = ("invoice", invoice_id)
            billed = shown.get((invoice_id, grant.identity.line_id or ""))
            if billed is not None:
                self._unbilled(grant, self._why_not_billed(*billed), paid_by)
            elif self._would_be_shown(grant) and grant.awaiting_payment:
                self._unbilled(grant, f"invoice {invoice_id} is gone", paid_by)
            elif self._would_be_shown(grant) and grant.left_micro:
                message = f"Grant {grant.id} is of an invoice that the provider does not have."
                self.problems.append(Problem("grant", grant.id, "no_payment", message))

    def _would_be_shown(self, grant: HeldGrant) -> bool:
        """Whether its invoice is not only beyond the newest ones, or not read at all."""
        if self.seen.subscription is None:
            return self.seen.is_customer_deleted
        dates = [invoice.created_at for invoice in self.seen.invoices]
        return len(dates) < INVOICES_SEEN_MAX or grant.effective_at > min(dates)

    def _unbilled(self, grant: HeldGrant, why: str | None, paid_by: tuple[str, str]) -> None:
        """A grant without an invoice: it waits (an empty `why`), goes, or stays (None)."""
        net = None if why is None else 0 if why else grant.amount_micro
        self.entitlements.append(
            Entitlement(
                grant.id,
                "monthly",
                grant.amount_micro,
                net,
                True,
                grant.effective_at,
                grant.expires_at,
                grant.identity,
                why or "",
                f"{self.sold.provider}:{paid_by[1]}",
                paid_by,
            )
        )
