"""What ought to be true of a purchase, by what its provider says now. Pure.

The rule of money for Stripe and partners alike; a webhook is only a reason to ask it. What it wants
depends on the provider's present picture and on the sum that is held, never on the order in which
pictures were seen, so that lost, repeated and late hints all end in the same.
"""

from datetime import datetime, timedelta
from typing import Final

from api.payments.entitlement import (
    Entitlement,
    Verdict,
    family,
    misfit,
    money,
    why_taken,
)
from api.payments.monthly import (
    FIRST,
    RENEWAL,
    bought_lines,
    line_misfit,
    monthly,
    subscription_row,
)
from api.payments.seen import Invoice, Seen, Session
from api.payments.terms import (
    Held,
    Identity,
    InvoiceRow,
    Options,
    Problem,
    Sold,
    Wanted,
)

SESSION_OVER: Final = timedelta(minutes=1)
"""After a session's end, when its webhook ought to have come."""
ASK_AGAIN: Final = timedelta(hours=1)
DEFAULTS: Final = Options()


def wanted(
    sold: Sold, held: Held, seen: Seen, now: datetime, options: Options = DEFAULTS
) -> Wanted:
    """The state, rows and grants that ought to be; whoever calls it writes the difference."""
    verdict = (
        monthly(sold, held, seen, now, options)
        if sold.kind == "monthly"
        else _one_time(sold, held, seen)
    )
    grants = [
        grant
        for entitlement in verdict.entitlements
        for grant in family(entitlement, held.grants, sold.provider)
    ]
    return Wanted(
        verdict.state,
        verdict.message,
        _look_at(verdict.state, seen.session, now),
        subscription_row(held, seen, now),
        tuple(_invoice_row(sold, seen, invoice) for invoice in seen.invoices),
        tuple(grants),
        verdict.problems,
    )


def _one_time(sold: Sold, held: Held, seen: Seen) -> Verdict:
    session = seen.session
    if session is None or sold.session_id not in (None, session.id):
        message = "The provider does not have the session that this grant was paid with."
        problems = tuple(
            Problem("grant", grant.id, "no_payment", message)
            for grant in held.grants
            if grant.left_micro and grant.identity.of_grant_id is None
        )
        return Verdict(held.state, held.message, (), problems)
    wrong = misfit(sold, session.quantity, session.subtotal_minor, session.currency)
    paid = money(session.payments)
    net: int | None = None
    problem: tuple[str, str] | None = None
    why = why_taken(session.payments)
    if _is_paid(session):
        if paid.is_all_taken:
            net = 0
        elif wrong:
            problem = "does_not_fit", f"It is paid, but nothing was granted for it: {wrong}."
        else:
            net = paid.left_of(sold.credits_micro)
    elif session.has_failed:
        net, why = 0, "the payment failed"
    elif any(grant.left_micro for grant in held.grants):
        problem = "not_paid", "It was granted, but the provider says that it is not paid."
    listed = (Problem("checkout.session", session.id, *problem),) if problem else ()
    entitlement = Entitlement(
        f"{sold.provider}:{session.id}",
        "one_time",
        sold.credits_micro,
        net,
        False,
        None,
        None,
        Identity(session_id=session.id),
        why,
        f"{sold.provider}:{session.id}",
        ("checkout.session", session.id),
        session.payments,
    )
    state, message = _state(held, session, fits=not wrong)
    return Verdict(state, message, (entitlement,), listed)


def _is_paid(session: Session) -> bool:
    return session.status == "complete" and session.payment_status in (
        "paid",
        "no_payment_required",
    )


def _state(held: Held, session: Session, *, fits: bool) -> tuple[str, str]:
    if _is_paid(session) and fits:
        return "paid", ""
    if session.has_failed:
        return "failed", session.message
    if held.state == "paid":
        return "paid", ""
    return ("expired" if session.status == "expired" else "awaiting_payment"), ""


def _look_at(state: str, session: Session | None, now: datetime) -> datetime | None:
    """Only what waits is asked about without a hint."""
    if state not in ("created", "awaiting_payment"):
        return None
    ends_at = session.expires_at if session is not None and session.status == "open" else None
    if ends_at is not None and ends_at + SESSION_OVER > now:
        return ends_at + SESSION_OVER
    return now + ASK_AGAIN


def _invoice_row(sold: Sold, seen: Seen, invoice: Invoice) -> InvoiceRow:
    lines = bought_lines(invoice)
    credits = 0
    payments = invoice.payments
    if sold.kind == "monthly":
        if invoice.billing_reason in (FIRST, RENEWAL):
            credits = sold.credits_micro * sum(not line_misfit(sold, line) for line in lines)
        start = lines[0].period_start if lines else None
        end = lines[0].period_end if lines else None
    else:
        start = end = None
        session = seen.session
        if session is not None:
            payments = payments or session.payments
            fits = not misfit(sold, session.quantity, session.subtotal_minor, session.currency)
            credits = sold.credits_micro if fits and _is_paid(session) else 0
    return InvoiceRow(
        invoice.id,
        invoice.number,
        invoice.status,
        invoice.billing_reason,
        invoice.currency,
        invoice.amount_paid_minor,
        money(payments).refunded_minor,
        credits,
        start,
        end,
        invoice.created_at,
        invoice.paid_at,
        invoice.hosted_invoice_url,
        invoice.invoice_pdf,
    )
