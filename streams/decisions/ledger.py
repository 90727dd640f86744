"""Movements of credits that are not usage: each is an entry of postings that sum to zero.

`available` and `debt` are the pool's accounts (a debt of 30 stands there as -30, so that the two
add up to the balance); `issued`, `forfeited`, `revoked` and `adjusted` are the other side.
`uncollected` belongs to the organization: what was spent of revoked credits and no pool owes. Every
function here works on a copy of a pool and answers the postings; the caller keeps the copy.
"""

from bisect import insort
from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import Struct, structs

from schemas.records import (
    INT64_MAX,
    Allocation,
    Grant,
    IssuedGrant,
    Pool,
    PoolKind,
    Posting,
)
from streams.decisions.state import Draft, grant_key
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
    nonzero = [leg for leg in legs if leg[2]]
    assert sum(amount for _, _, amount in nonzero) == 0, "every movement sums to zero"
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
        for number, (account, grant_id, amount) in enumerate(nonzero)
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
    pool: Pool,
    grant_id: str,
    amount_micro: int,
    forfeited_micro: int,
    cause: Cause,
    name: PoolName,
    *,
    is_closed: bool,
) -> list[Posting]:
    """Revokes: first what the grant has left, then what was forfeited of it, which moves nothing
    any more. The rest was spent, and becomes the pool's debt; a closed pool owes nothing."""
    taken_micro = min(remaining_micro(pool, grant_id), amount_micro)
    if taken_micro:
        take_from_grant(pool, grant_id, taken_micro)
    owed_micro = max(0, amount_micro - taken_micro - forfeited_micro)
    if not is_closed:
        _owe(pool, owed_micro)
    legs: list[Leg] = [
        ("available", grant_id, -taken_micro),
        ("uncollected" if is_closed else "debt", grant_id, -owed_micro),
        ("revoked", grant_id, taken_micro + owed_micro),
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
    left_micro = remaining_micro(pool, grant_id)
    take_from_grant(pool, grant_id, left_micro)
    legs: Sequence[Leg] = [
        ("available", grant_id, -left_micro),
        ("forfeited", grant_id, left_micro),
    ]
    return entry(cause, entry_id, kind, name, legs, pool.balance_micro)


def close(pool: Pool, cause: Cause, group_id: str) -> list[Posting]:
    """A deleted group's pool: what remains is forfeited, and what it owes is uncollected."""
    name = PoolName("group", group_id)
    postings: list[Posting] = []
    for grant_id in [grant.grant_id for grant in pool.grants]:
        entry_id = closing_entry_id(group_id, grant_id)
        postings += forfeit(pool, grant_id, cause, entry_id, "group_deleted", name)
    owed_micro = pool.debt_micro
    pool.debt_micro = 0
    pool.balance_micro += owed_micro
    legs: list[Leg] = [("debt", "", owed_micro), ("uncollected", "", -owed_micro)]
    return postings + entry(cause, f"group-debt:{group_id}", "group_deleted", name, legs, 0)


def note_unspent(draft: Draft, postings: Iterable[Posting]) -> None:
    """Remembers of each grant what these postings took out of it, none of which was spent."""
    for posting in postings:
        if posting.account == "available" and posting.amount_micro < 0:
            key = grant_key(posting.organization_id, posting.grant_id)
            issued: IssuedGrant | None = draft.get(key)
            assert issued is not None, "every grant in a pool was issued"
            gone_micro = issued.forfeited_micro - posting.amount_micro
            draft.put(key, structs.replace(issued, forfeited_micro=gone_micro))


def remaining_micro(pool: Pool, grant_id: str) -> int:
    """What is left of a grant in its pool; 0 where it is not there any more."""
    return sum(grant.remaining_micro for grant in pool.grants if grant.grant_id == grant_id)


def closing_entry_id(group_id: str, grant_id: str) -> str:
    """Ids may have colons in them, and `a` with `b:c` is not `a:b` with `c`. A group's id without
    one ends at the first colon, as it does in every entry that was written before this rule."""
    if ":" not in group_id:
        return f"group-deleted:{group_id}:{grant_id}"
    return f"group-closed:{len(group_id)}:{group_id}:{grant_id}"


def _owe(pool: Pool, amount_micro: int) -> None:
    pool.debt_micro += amount_micro
    pool.balance_micro -= amount_micro
