"""Which grants pay? The order in which a pool burns, and what an amount takes from each grant.

Monthly before one-time, then the earliest expiry (none is last), then the oldest, then the id.
"""

from datetime import UTC, datetime

from schemas.records import Allocation, Grant, Pool, PoolKind

_NEVER = datetime.max.replace(tzinfo=UTC)


def burn_order(grant: Grant) -> tuple[bool, datetime, datetime, str]:
    """The sort key of a pool's grants: a total order, since ids are unique."""
    return (
        grant.kind != "monthly",
        grant.expires_at or _NEVER,
        grant.effective_at,
        grant.grant_id,
    )


def draw(
    pool: Pool, kind: PoolKind, amount_micro: int, at: datetime, allocations: list[Allocation]
) -> int:
    """What the pool pays of an amount: appended to `allocations` by grant, and the sum.

    The grants that are eligible at that time pay in burn order until it is enough. Mutates no
    grant.
    """
    if not amount_micro:
        return 0
    left_micro = amount_micro
    for grant in pool.grants:
        expires_at = grant.expires_at
        if grant.effective_at <= at and (expires_at is None or at < expires_at):
            remaining_micro = grant.remaining_micro
            if remaining_micro >= left_micro:
                allocations.append(Allocation(kind, grant.grant_id, left_micro))
                return amount_micro
            allocations.append(Allocation(kind, grant.grant_id, remaining_micro))
            left_micro -= remaining_micro
    return amount_micro - left_micro


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
