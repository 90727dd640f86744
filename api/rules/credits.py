"""Prices, grants, revocations and adjustments: what only the operator may change."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from api.errors import conflict, invalid, not_found
from api.ids import new_id
from api.rules.change import Actor, Change, Transaction
from api.rules.memberships import live_group
from api.rules.names import clean_id, clean_name
from api.rules.websites import get_website
from api.storage.ledgers import AuditEntry, Grant, Price
from api.storage.models import Organization
from api.storage.store import lock_price_book
from schemas.records import (
    ID_LIMIT_CHARACTERS,
    INT64_MAX,
    Adjusted,
    Granted,
    GrantKind,
    PoolKind,
    PriceSet,
    Revoked,
)


@dataclass(frozen=True, slots=True)
class NewPrice:
    """Micro-credits per million units of a meter, from `effective_at` on (None: from now)."""

    meter: str
    micro_per_million_units: int
    effective_at: datetime | None = None

    def check(self) -> None:
        if not 1 <= len(self.meter) <= ID_LIMIT_CHARACTERS:
            raise invalid(f"A meter has 1 to {ID_LIMIT_CHARACTERS} characters.", "meter")
        _amount(self.micro_per_million_units, "micro_per_million_units", at_least=0)


def set_price(change: Change, new: NewPrice) -> Price:
    """A price of this organization's own book; it beats the default one."""
    new.check()
    price = _insert_price(change, new, change.organization_id)
    change.member_fact(
        PriceSet(new.meter, new.micro_per_million_units, "organization"), price.effective_at
    )
    after: dict[str, object] = {
        "meter": new.meter,
        "micro_per_million_units": new.micro_per_million_units,
        "effective_at": price.effective_at.isoformat(),
    }
    change.audit("price.set", ("meter", new.meter), None, after)
    return price


def set_default_price(transaction: Transaction, new: NewPrice) -> Price:
    """A price of the default book, told to every organization in the same transaction."""
    new.check()
    lock_price_book(transaction.session)
    now = transaction.clock()
    effective_at = new.effective_at or now
    price = Price(
        organization_id=None,
        meter=new.meter,
        micro_per_million_units=new.micro_per_million_units,
        effective_at=effective_at,
        created_at=now,
    )
    transaction.session.add(price)
    ids = transaction.session.scalars(select(Organization.id).order_by(Organization.id))
    for organization_id in list(ids):
        transaction.change(organization_id).member_fact(
            PriceSet(new.meter, new.micro_per_million_units, "default"), effective_at
        )
    transaction.session.add(
        platform_audit(
            transaction.actor,
            now,
            "price.set_default",
            ("meter", new.meter),
            {"micro_per_million_units": new.micro_per_million_units},
        )
    )
    transaction.session.flush()
    return price


def platform_audit(
    actor: Actor,
    now: datetime,
    action: str,
    subject: tuple[str, str],
    after: dict[str, object],
    before: dict[str, object] | None = None,
) -> AuditEntry:
    """An audit entry that belongs to no organization."""
    return AuditEntry(
        organization_id=None,
        at=now,
        actor=actor.id,
        how=actor.how,
        action=action,
        subject_kind=subject[0],
        subject_id=subject[1],
        before=before,
        after=after,
    )


def _insert_price(change: Change, new: NewPrice, organization_id: str) -> Price:
    price = Price(
        organization_id=organization_id,
        meter=new.meter,
        micro_per_million_units=new.micro_per_million_units,
        effective_at=new.effective_at or change.now,
        created_at=change.now,
    )
    change.session.add(price)
    change.session.flush()
    return price


@dataclass(frozen=True, slots=True)
class NewGrant:
    """Credits for a pool, in micro-credits, valid `effective_at <= time < expires_at`."""

    pool_kind: PoolKind
    pool_id: str
    kind: GrantKind
    amount_micro: int
    source: str
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    awaiting_payment: bool = False
    grant_id: str | None = None


def grant(change: Change, new: NewGrant) -> Grant:
    """Grants credits. Raises Refused (409) where the grant's id is taken: the same grant twice."""
    _amount(new.amount_micro, "amount_micro", at_least=1)
    effective_at = new.effective_at or change.now
    if new.kind == "monthly" and new.expires_at is None:
        raise invalid("A monthly grant needs the end of its period.", "expires_at")
    if new.expires_at is not None and new.expires_at <= effective_at:
        raise invalid("The grant would expire before it begins.", "expires_at")
    require_pool(change, new.pool_kind, new.pool_id)
    chosen = clean_id(new.grant_id, "grant_id") if new.grant_id else new_id("grant")
    if change.session.get(Grant, (change.organization_id, chosen)) is not None:
        raise conflict("grant_exists", f"There is a grant {chosen!r} already.", "grant_id")
    row = Grant(
        organization_id=change.organization_id,
        id=chosen,
        pool_kind=new.pool_kind,
        pool_id=new.pool_id,
        kind=new.kind,
        amount_micro=new.amount_micro,
        revoked_micro=0,
        source=clean_name(new.source, "source"),
        effective_at=effective_at,
        expires_at=new.expires_at,
        awaiting_payment=new.awaiting_payment,
        created_at=change.now,
    )
    change.session.add(row)
    change.session.flush()
    change.credit_fact(
        Granted(
            chosen,
            new.pool_kind,
            new.pool_id,
            new.kind,
            new.amount_micro,
            row.source,
            new.expires_at,
            new.awaiting_payment,
        ),
        effective_at,
    )
    after: dict[str, object] = {
        "pool_kind": new.pool_kind,
        "pool_id": new.pool_id,
        "kind": new.kind,
        "amount_micro": new.amount_micro,
        "source": row.source,
    }
    change.audit("grant.create", ("grant", chosen), None, after)
    return row


def revoke(change: Change, grant_id: str, amount_micro: int | None, why: str) -> Grant:
    """Takes a grant back, whole (None) or in part. What was spent of it becomes the pool's debt.

    Raises Refused (409) where more would be revoked than was granted.
    """
    row = change.session.get(Grant, (change.organization_id, grant_id))
    if row is None:
        raise not_found("grant", grant_id, "grant_id")
    left = row.amount_micro - row.revoked_micro
    amount = left if amount_micro is None else amount_micro
    _amount(amount, "amount_micro", at_least=1 if amount_micro is not None else 0)
    if amount > left or left == 0:
        raise conflict(
            "grant_revoked",
            f"Only {left} micro-credits of this grant are not revoked yet.",
            "amount_micro",
        )
    before: dict[str, object] = {"revoked_micro": row.revoked_micro}
    row.revoked_micro += amount
    change.credit_fact(Revoked(grant_id, amount, clean_name(why, "why")))
    after = {"revoked_micro": row.revoked_micro, "why": why}
    change.audit("grant.revoke", ("grant", grant_id), before, after)
    return row


def adjust(change: Change, pool_kind: PoolKind, pool_id: str, amount_micro: int, why: str) -> int:
    """A correction by hand, of either sign; returns the version of its fact."""
    require_pool(change, pool_kind, pool_id)
    _amount(abs(amount_micro), "amount_micro", at_least=1)
    version = change.credit_fact(Adjusted(pool_kind, pool_id, amount_micro, clean_name(why, "why")))
    after: dict[str, object] = {"amount_micro": amount_micro, "why": why}
    change.audit("pool.adjust", (pool_kind, pool_id), None, after)
    return version


def require_pool(change: Change, pool_kind: PoolKind, pool_id: str) -> None:
    """Raises Refused where the pool is none: Unassigned, deleted or unknown."""
    if pool_kind == "group":
        live_group(change, pool_id, "pool_id")
    else:
        get_website(change, pool_id)


def _amount(amount: int, where: str, at_least: int) -> None:
    if not at_least <= amount <= INT64_MAX:
        raise invalid(f"An amount of {at_least} to {INT64_MAX} micro-credits is needed.", where)
