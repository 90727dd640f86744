"""Which grants pay? The order in which a pool burns, and what an amount takes from each grant.

Monthly before one-time, then the earliest expiry (none is last), then the oldest, then the id.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from schemas.records import Allocation, Grant, Pool, PoolKind
from streams.decisions.state import State, pool_key

_NEVER = datetime.max.replace(tzinfo=UTC)


def burn_order(grant: Grant) -> tuple[bool, datetime, datetime, str]:
    """The sort key of a pool's grants: a total order, since ids are unique."""
    return (
        grant.kind != "monthly",
        grant.expires_at or _NEVER,
        grant.effective_at,
        grant.grant_id,
    )


def takings(pool: Pool, amount_micro: int, at: datetime) -> Iterator[tuple[str, int]]:
    """What each grant that is eligible at that time pays, in burn order, until it is enough.

    Mutates nothing. An amount of 0 takes nothing.
    """
    if amount_micro <= 0:
        return
    for grant in pool.grants:
        expires_at = grant.expires_at
        if grant.effective_at <= at and (expires_at is None or at < expires_at):
            taken = grant.remaining_micro
            if taken >= amount_micro:
                yield grant.grant_id, amount_micro
                return
            yield grant.grant_id, taken
            amount_micro -= taken


def draw(
    pool: Pool, kind: PoolKind, amount_micro: int, at: datetime, allocations: list[Allocation]
) -> int:
    """Appends what the pool pays of the amount to `allocations`, and answers the sum."""
    covered_micro = 0
    for grant_id, taken_micro in takings(pool, amount_micro, at):
        allocations.append(Allocation(kind, grant_id, taken_micro))
        covered_micro += taken_micro
    return covered_micro


def take_from_grant(pool: Pool, grant_id: str, amount_micro: int) -> None:
    """Applies one taking to the pool; a grant of which nothing remains goes."""
    for place, grant in enumerate(pool.grants):
        if grant.grant_id == grant_id:
            remaining_micro = grant.remaining_micro - amount_micro
            assert remaining_micro >= 0, "a debit never meets a negative number"
            grant.remaining_micro = remaining_micro
            pool.balance_micro -= amount_micro
            if not remaining_micro:
                del pool.grants[place]
            return
    raise AssertionError(f"grant {grant_id} is not in its pool")


def apply_allocations(
    organization_id: str,
    website_id: str,
    group_id: str,
    allocations: list[Allocation],
    state: State,
) -> None:
    """Takes what was allocated from the two pools of an event."""
    for allocation in allocations:
        pool_id = group_id if allocation.pool == "group" else website_id
        key = pool_key(organization_id, allocation.pool, pool_id)
        pool: Pool | None = state.get(key)
        assert pool is not None, "a debit has its pool"
        take_from_grant(pool, allocation.grant_id, allocation.amount_micro)
        state.put(key, pool)
