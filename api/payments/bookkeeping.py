"""A purchase's rows besides its grants: read as `Held`, and made to follow what ought to be."""

from dataclasses import asdict, replace
from typing import Any, cast

from sqlalchemy import or_, select, tuple_
from sqlalchemy.orm import Session

from api.payments.seen import Seen
from api.payments.terms import (
    Held,
    HeldGrant,
    Identity,
    InvoiceRow,
    Problem,
    SubscriptionRow,
    Wanted,
)
from api.rules.change import Change
from api.storage.ledgers import Grant
from api.storage.purchases import BoughtGrant, Invoice, Purchase, Subscription, Unmatched
from schemas.records import GrantKind

MESSAGE_LIMIT_CHARACTERS = 512
PROBLEM_LIMIT_CHARACTERS = 1024


def held(session: Session, purchase: Purchase) -> Held:
    """What the database holds for the purchase, read in the transaction that changes it."""
    rows = session.execute(
        select(BoughtGrant, Grant)
        .join(
            Grant,
            (Grant.organization_id == BoughtGrant.organization_id)
            & (Grant.id == BoughtGrant.grant_id),
        )
        .where(
            BoughtGrant.organization_id == purchase.organization_id,
            BoughtGrant.purchase_id == purchase.id,
        )
        .order_by(Grant.id)
    )
    subscription = session.get(Subscription, (purchase.organization_id, purchase.id))
    return Held(
        purchase.state,
        purchase.message,
        tuple(_held_grant(bought, grant) for bought, grant in rows),
        None if subscription is None else _subscription_row(subscription),
    )


def _held_grant(bought: BoughtGrant, grant: Grant) -> HeldGrant:
    identity = Identity(
        bought.session_id,
        bought.invoice_id,
        bought.line_id,
        bought.subscription_id,
        bought.period_start,
        bought.dispute_id,
        bought.of_grant_id,
    )
    return HeldGrant(
        grant.id,
        cast(GrantKind, grant.kind),
        grant.amount_micro,
        grant.revoked_micro,
        grant.awaiting_payment,
        grant.effective_at,
        grant.expires_at,
        identity,
    )


def _subscription_row(row: Subscription) -> SubscriptionRow:
    return SubscriptionRow(
        row.provider_id,
        row.status,
        row.cancel_at_period_end,
        row.current_period_start,
        row.current_period_end,
        row.ended_at,
    )


def without_others(
    session: Session, purchase: Purchase, seen: Seen
) -> tuple[Seen, tuple[Problem, ...]]:
    """Without the objects that another purchase has already: those cannot be of two."""
    problems = []
    mine = (purchase.organization_id, purchase.id)
    if seen.subscription is not None:
        row = session.scalar(
            select(Subscription).where(
                Subscription.provider == purchase.provider,
                Subscription.provider_id == seen.subscription.id,
            )
        )
        if row is not None and (row.organization_id, row.purchase_id) != mine:
            problems.append(_of_another("subscription", seen.subscription.id, row.purchase_id))
            seen = replace(seen, subscription=None)
    if seen.session is not None:
        other = session.scalar(
            select(Purchase).where(
                Purchase.provider == purchase.provider, Purchase.session_id == seen.session.id
            )
        )
        if other is not None and (other.organization_id, other.id) != mine:
            problems.append(_of_another("checkout.session", seen.session.id, other.id))
            seen = replace(seen, session=None)
    rows = session.scalars(
        select(Invoice).where(
            Invoice.provider == purchase.provider,
            Invoice.provider_id.in_([invoice.id for invoice in seen.invoices]),
        )
    )
    others = {
        row.provider_id: row.purchase_id
        for row in rows
        if (row.organization_id, row.purchase_id) != mine
    }
    problems += [_of_another("invoice", *each) for each in sorted(others.items())]
    kept = tuple(invoice for invoice in seen.invoices if invoice.id not in others)
    return replace(seen, invoices=kept), tuple(problems)


def _of_another(kind: str, object_id: str, purchase_id: str) -> Problem:
    message = f"The {kind} is that of purchase {purchase_id} already."
    return Problem(kind, object_id, "of_another_purchase", message)


def follow(change: Change, purchase: Purchase, seen: Seen, want: Wanted) -> list[str]:
    """The rows of the purchase, its subscription and its invoices, and what differed in words."""
    differences = _purchase(change, purchase, seen, want)
    if want.subscription is not None:
        differences += _subscription(change, purchase, want.subscription)
    known = change.session.scalars(
        select(Invoice).where(
            Invoice.organization_id == purchase.organization_id,
            Invoice.provider == purchase.provider,
            Invoice.provider_id.in_([invoice.provider_id for invoice in want.invoices]),
        )
    )
    by_id = {row.provider_id: row for row in known}
    for invoice in want.invoices:
        row = by_id.get(invoice.provider_id)
        differences += _invoice(change.session, purchase, row, invoice)
    return differences


def _purchase(change: Change, purchase: Purchase, seen: Seen, want: Wanted) -> list[str]:
    differences = []
    message = want.message[:MESSAGE_LIMIT_CHARACTERS]
    if (purchase.state, purchase.message) != (want.state, message):
        before = {"state": purchase.state, "message": purchase.message}
        after = {"state": want.state, "message": message}
        change.audit("purchase.follow", ("purchase", purchase.id), before, after)
        differences.append(f"purchase {purchase.id}: {purchase.state} → {want.state}")
        purchase.state, purchase.message = want.state, message
        purchase.updated_at = change.now
    session = seen.session
    if session is not None:
        # A partner that refused for good made none: its id is empty.
        purchase.session_id = purchase.session_id or session.id or None
        purchase.checkout_url = purchase.checkout_url or session.url
        purchase.payment_intent_id = session.payment_intent_id or purchase.payment_intent_id
    purchase.look_at, purchase.looks_failed = want.look_at, 0
    return differences


def _subscription(change: Change, purchase: Purchase, want: SubscriptionRow) -> list[str]:
    key = (purchase.organization_id, purchase.id)
    row = change.session.get(Subscription, key)
    before = None if row is None else _subscription_row(row)
    if before == want:
        return []
    if row is None:
        row = Subscription(organization_id=key[0], purchase_id=key[1], provider=purchase.provider)
        change.session.add(row)
    for name, value in asdict(want).items():
        setattr(row, name, value)
    row.updated_at = change.now
    was, now = _shown(before), _shown(want)
    if was != now:
        change.audit("subscription.follow", ("subscription", want.provider_id), was, now)
    ending = ", to end with its period" if want.cancel_at_period_end else ""
    return [f"subscription {want.provider_id}: {want.status}{ending}"]


def _shown(row: SubscriptionRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"status": row.status, "cancel_at_period_end": row.cancel_at_period_end}


def _invoice(
    session: Session, purchase: Purchase, row: Invoice | None, want: InvoiceRow
) -> list[str]:
    values = asdict(want)
    if row is not None and all(getattr(row, name) == value for name, value in values.items()):
        return []
    was = None if row is None else row.status
    if row is None:
        row = Invoice(
            organization_id=purchase.organization_id,
            provider=purchase.provider,
            purchase_id=purchase.id,
        )
        session.add(row)
    for name, value in values.items():
        setattr(row, name, value)
    how = f"{was} → {want.status}" if was not in (None, want.status) else want.status
    return [f"invoice {want.provider_id}: {how}"]


def put_aside(
    change: Change, purchase: Purchase, seen: Seen, problems: tuple[Problem, ...]
) -> list[str]:
    """Problems of the purchase and of what was seen of it, as rows; those of before go."""
    wanted = {(each.object_kind, each.object_id): each for each in reversed(problems)}
    objects = [("invoice", invoice.id) for invoice in seen.invoices]
    objects += [("checkout.session", seen.session.id)] if seen.session else []
    objects += [("subscription", seen.subscription.id)] if seen.subscription else []
    at = tuple_(Unmatched.object_kind, Unmatched.object_id)
    rows = change.session.scalars(
        select(Unmatched).where(
            Unmatched.provider == purchase.provider,
            or_(
                (Unmatched.organization_id == purchase.organization_id)
                & (Unmatched.purchase_id == purchase.id),
                at.in_([*objects, *wanted]),
            ),
        )
    )
    differences = []
    for row in rows:
        key = (row.object_kind, row.object_id)
        problem = wanted.pop(key, None)
        if problem is None:
            change.session.delete(row)
            differences.append(f"{row.object_kind} {row.object_id} fits again")
        else:
            row.code, row.message = problem.code, problem.message[:PROBLEM_LIMIT_CHARACTERS]
            row.organization_id, row.purchase_id = purchase.organization_id, purchase.id
    for problem in wanted.values():
        change.session.add(
            Unmatched(
                provider=purchase.provider,
                object_kind=problem.object_kind,
                object_id=problem.object_id,
                code=problem.code,
                message=problem.message[:PROBLEM_LIMIT_CHARACTERS],
                organization_id=purchase.organization_id,
                purchase_id=purchase.id,
                since=change.now,
            )
        )
        differences.append(f"{problem.object_kind} {problem.object_id}: {problem.message}")
    return differences
