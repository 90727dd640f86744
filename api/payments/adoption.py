"""Grants that a purchase lost: of a database that was restored from an older backup.

Their facts were imported again (`api.repair.importer`), so that the grants are there, but nothing
of them says any more what paid for them. It is their ids that tell: they are made of the provider's
own. A grant is taken for a purchase's only where pool, kind and source fit, too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, exists, select, true
from sqlalchemy.orm import Session

from api.payments.monthly import FIRST, RENEWAL, bought_lines
from api.payments.seen import Payment, Seen, Subscription
from api.payments.terms import Identity, Sold
from api.storage.ledgers import Grant
from api.storage.purchases import BoughtGrant

AGAIN_MAX: Final = 9
IDS_A_STATEMENT: Final = 1_000
TRUE: Final = true()


def has_lost(session: Session, sold: Sold) -> bool:
    """Whether the pool has credits of the provider that no purchase has: usually not."""
    found = session.scalar(
        select(Grant.id)
        .where(
            Grant.organization_id == sold.organization_id,
            Grant.pool_kind == sold.pool_kind,
            Grant.pool_id == sold.pool_id,
            Grant.revoked_micro < Grant.amount_micro,
            Grant.source.startswith(f"{sold.provider}:", autoescape=True),
            ~_is_bought(),
        )
        .limit(1)
    )
    return found is not None


def lost(session: Session, sold: Sold, seen: Seen) -> list[BoughtGrant]:
    """The rows that are missing of what was seen; to be added to the session."""
    bases = {base.grant_id: base for base in _bases(sold, seen)}
    given = _of_ids(session, sold, bases)
    identities = {grant_id: bases[grant_id].identity for grant_id in given}
    for grant_id in given:
        identities |= _given_back(sold, bases[grant_id])
    missing = _of_ids(session, sold, identities, and_also=~_is_bought())
    return [_bought(sold, grant_id, identities[grant_id]) for grant_id in missing]


def _of_ids(
    session: Session, sold: Sold, ids: Iterable[str], and_also: ColumnElement[bool] = TRUE
) -> list[str]:
    """Which of them are grants of the purchase's pool and kind, by its provider."""
    listed = sorted(ids)
    found: list[str] = []
    for start in range(0, len(listed), IDS_A_STATEMENT):
        found += session.scalars(
            select(Grant.id)
            .where(
                Grant.organization_id == sold.organization_id,
                Grant.pool_kind == sold.pool_kind,
                Grant.pool_id == sold.pool_id,
                Grant.kind == sold.kind,
                Grant.source.startswith(f"{sold.provider}:", autoescape=True),
                Grant.id.in_(listed[start : start + IDS_A_STATEMENT]),
                and_also,
            )
            .order_by(Grant.id)
        )
    return found


def _is_bought() -> ColumnElement[bool]:
    return exists().where(
        BoughtGrant.organization_id == Grant.organization_id, BoughtGrant.grant_id == Grant.id
    )


@dataclass(frozen=True, slots=True)
class _Base:
    """A grant that a payment may have been given, and by what it may have been given more."""

    grant_id: str
    identity: Identity
    payments: tuple[Payment, ...] = ()
    line: str = ""


def _bases(sold: Sold, seen: Seen) -> Iterator[_Base]:
    session, subscription = seen.session, seen.subscription
    if sold.kind == "one_time":
        if session is not None:
            identity = Identity(session_id=session.id)
            yield _Base(f"{sold.provider}:{session.id}", identity, session.payments)
        return
    if subscription is not None:
        for start in filter(None, (subscription.period_end, subscription.period_start)):
            yield _placed(sold, subscription, start)
    for invoice in seen.invoices:
        if invoice.billing_reason not in (FIRST, RENEWAL):
            continue
        for number, line in enumerate(bought_lines(invoice)):
            own = invoice.id if line.id == invoice.id else f"{invoice.id}:{line.id}"
            identity = Identity(invoice_id=invoice.id, line_id=line.id)
            suffix = f":{line.id}" if number else ""
            yield _Base(f"{sold.provider}:{own}", identity, invoice.payments, suffix)
            if subscription is not None:
                placed = _placed(sold, subscription, line.period_start)
                yield replace(placed, payments=invoice.payments, line=suffix)


def _placed(sold: Sold, subscription: Subscription, start: datetime) -> _Base:
    """Placed ahead of its invoice."""
    identity = Identity(subscription_id=subscription.id, period_start=start)
    return _Base(f"{sold.provider}:{subscription.id}:{int(start.timestamp())}", identity)


def _given_back(sold: Sold, base: _Base) -> dict[str, Identity]:
    disputes = [dispute for payment in base.payments for dispute in payment.disputes]
    names = [f"again:{number}" for number in range(1, AGAIN_MAX + 1)]
    return {
        f"{sold.provider}:{dispute.id}:won{base.line}": Identity(
            dispute_id=dispute.id, of_grant_id=base.grant_id
        )
        for dispute in disputes
    } | {
        f"{base.grant_id}:{name}": Identity(dispute_id=name, of_grant_id=base.grant_id)
        for name in names
    }


def _bought(sold: Sold, grant_id: str, identity: Identity) -> BoughtGrant:
    return BoughtGrant(
        organization_id=sold.organization_id,
        grant_id=grant_id,
        purchase_id=sold.purchase_id,
        provider=sold.provider,
        **asdict(identity),
    )
