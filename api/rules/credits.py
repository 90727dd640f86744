"""Grants, revocations and adjustments: what only the operator may change."""

from dataclasses import dataclass
from datetime import datetime

from api.errors import conflict, invalid, not_found
from api.ids import new_id
from api.rules.change import Change
from api.rules.memberships import live_group
from api.rules.names import clean_id, clean_name
from api.rules.prices import check_amount
from api.rules.websites import get_website
from api.storage.ledgers import Grant
from schemas.records import Adjusted, Granted, GrantKind, PoolKind, Revoked


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
    check_amount(new.amount_micro, "amount_micro", at_least=1)
    effective_at = new.effective_at or change.now
    if new.kind == "monthly" and new.expires_at is None:
        raise invalid("A monthly grant needs the end of its period.", "expires_at")
    if new.expires_at is not None and new.expires_at <= effective_at:
        raise invalid("The grant would expire before it begins.", "expires_at")
    require_pool(change, new.pool_kind, new.pool_id)
    chosen = clean_id(new.grant_id, "grant_id") if new.grant_id else new_id("grant")
    if change.session.get(Grant, (change.organization_id, chosen)) is not None:
        raise conflict(
            "grant_exists",
            f"There is a grant {chosen!r} already.",
            "id",
            "Choose another id, or none.",
        )
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
    check_amount(amount, "amount_micro", at_least=1 if amount_micro is not None else 0)
    if amount > left or left == 0:
        raise conflict(
            "grant_revoked",
            f"Only {left} micro-credits of this grant are not revoked yet.",
            "amount_micro",
            "Revoke at most so many, or leave the amount out.",
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
    check_amount(abs(amount_micro), "amount_micro", at_least=1)
    version = change.credit_fact(Adjusted(pool_kind, pool_id, amount_micro, clean_name(why, "why")))
    after: dict[str, object] = {"amount_micro": amount_micro, "why": why}
    change.audit("pool.adjust", (pool_kind, pool_id), None, after)
    return version


def require_pool(change: Change, pool_kind: PoolKind, pool_id: str) -> None:
    """Raises Refused where the pool is none: Unassigned, deleted or unknown."""
    if pool_kind == "group":
        live_group(change, pool_id, "pool_id")
    else:
        get_website(change, pool_id, "pool_id")
