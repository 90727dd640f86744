"""Movements of credits that are not usage: each is an entry of postings that sum to zero.

`available` and `debt` are the pool's accounts (a debt of 30 stands there as -30, so that the two
add up to the balance); `issued`, `forfeited`, `revoked` and `adjusted` are the other side. Every
function here works on a copy of a pool and answers the postings; the caller keeps the copy.
"""

from bisect import insort
from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import Struct

from schemas.records import INT64_MAX, Allocation, Grant, Pool, PoolKind, Posting
from streams.decisions.waterfall import burn_order, draw, take_from_grant


class Cause(Struct, frozen=True):
    """What a movement is due to: a fact, or the clock (no topic, version 0)."""

    organization_id: str
    topic: str
    version: int
    effective_at: datetime
    now: datetime


class PoolName(Struct, frozen=True):
    kind: PoolKind
    pool_id: str


Leg = tuple[str, str, int]
"""Account, grant id (empty for debt), signed amount."""


def copy_of(pool: Pool | None) -> Pool:
    """A pool to work on; an empty one where there was none."""
    if pool is None:
        return Pool()
    grants = [
        Grant(g.grant_id, g.kind, g.remaining_micro, g.effective_at, g.expires_at, g.version)
        for g in pool.grants
    ]
    return Pool(grants, pool.debt_micro, pool.balance_micro)


def available_micro(pool: Pool) -> int:
    return pool.balance_micro + pool.debt_micro


def fits(pool: Pool) -> bool:
    """Whether both of the pool's accounts are within Int64."""
    return available_micro(pool) <= INT64_MAX and pool.debt_micro <= INT64_MAX


def entry(
    cause: Cause, entry_id: str, kind: str, name: PoolName, legs: Iterable[Leg], balance: int
) -> list[Posting]:
    """The postings of one entry; legs of nothing are left out."""
    moved = [leg for leg in legs if leg[2]]
    assert sum(amount for _, _, amount in moved) == 0, "every movement sums to zero"
    return [
        Posting(
            organization_id=cause.organization_id,
            entry_id=entry_id,
            leg=number,
            kind=kind,
            account=account,
            pool_kind=name.kind,
            pool_id=name.pool_id,
            grant_id=grant_id,
            amount_micro=amount,
            balance_after_micro=balance,
            caused_by_topic=cause.topic,
            caused_by_version=cause.version,
            effective_at=cause.effective_at,
            recorded_at=cause.now,
        )
        for number, (account, grant_id, amount) in enumerate(moved)
    ]


def put_in(
    pool: Pool, grant: Grant, cause: Cause, entry_id: str, name: PoolName, *, adjustment: bool
) -> list[Posting]:
    """Adds a grant: the debt is repaid first, the rest can be spent."""
    amount_micro = grant.remaining_micro
    repaid_micro = min(pool.debt_micro, amount_micro)
    pool.debt_micro -= repaid_micro
    pool.balance_micro += amount_micro
    grant.remaining_micro = amount_micro - repaid_micro
    if grant.remaining_micro:
        insort(pool.grants, grant, key=burn_order)
    legs: list[Leg] = [
        ("available", grant.grant_id, grant.remaining_micro),
        ("debt", grant.grant_id, repaid_micro),
        ("adjusted" if adjustment else "issued", grant.grant_id, -amount_micro),
    ]
    kind = "adjustment" if adjustment else "grant"
    return entry(cause, entry_id, kind, name, legs, pool.balance_micro)


def take_back(
    pool: Pool, grant_id: str, amount_micro: int, cause: Cause, name: PoolName
) -> list[Posting]:
    """Revokes: at most what the grant has left, the rest becomes the pool's debt."""
    left_micro = sum(g.remaining_micro for g in pool.grants if g.grant_id == grant_id)
    taken_micro = min(left_micro, amount_micro)
    if taken_micro:
        take_from_grant(pool, grant_id, taken_micro)
    owed_micro = amount_micro - taken_micro
    _owe(pool, owed_micro)
    legs: list[Leg] = [
        ("available", grant_id, -taken_micro),
        ("debt", grant_id, -owed_micro),
        ("revoked", grant_id, amount_micro),
    ]
    return entry(cause, f"revoke:{cause.version}", "revoke", name, legs, pool.balance_micro)


def take_out(pool: Pool, amount_micro: int, cause: Cause, name: PoolName) -> list[Posting]:
    """A negative adjustment: from the grants eligible at its time, in burn order, then debt."""
    taken: list[Allocation] = []
    owed_micro = amount_micro - draw(pool, name.kind, amount_micro, cause.effective_at, taken)
    for part in taken:
        take_from_grant(pool, part.grant_id, part.amount_micro)
    _owe(pool, owed_micro)
    legs: list[Leg] = [("available", part.grant_id, -part.amount_micro) for part in taken]
    legs += [("debt", "", -owed_micro), ("adjusted", "", amount_micro)]
    return entry(cause, f"adjust:{cause.version}", "adjustment", name, legs, pool.balance_micro)


def forfeit(
    pool: Pool, grant_id: str, cause: Cause, entry_id: str, kind: str, name: PoolName
) -> list[Posting]:
    """What remains of a grant, which is more than nothing while it is in its pool, is gone."""
    left_micro = sum(g.remaining_micro for g in pool.grants if g.grant_id == grant_id)
    take_from_grant(pool, grant_id, left_micro)
    legs: Sequence[Leg] = [
        ("available", grant_id, -left_micro),
        ("forfeited", grant_id, left_micro),
    ]
    return entry(cause, entry_id, kind, name, legs, pool.balance_micro)


def close(pool: Pool, cause: Cause, group_id: str) -> list[Posting]:
    """A deleted group's pool: what remains is forfeited, and what it owes is written off."""
    name = PoolName("group", group_id)
    postings: list[Posting] = []
    for grant_id in [grant.grant_id for grant in pool.grants]:
        entry_id = f"group-deleted:{group_id}:{grant_id}"
        postings += forfeit(pool, grant_id, cause, entry_id, "group_deleted", name)
    owed_micro = pool.debt_micro
    pool.debt_micro = 0
    pool.balance_micro += owed_micro
    legs: list[Leg] = [("debt", "", owed_micro), ("forfeited", "", -owed_micro)]
    return postings + entry(cause, f"group-debt:{group_id}", "group_deleted", name, legs, 0)


def _owe(pool: Pool, amount_micro: int) -> None:
    pool.debt_micro += amount_micro
    pool.balance_micro -= amount_micro
