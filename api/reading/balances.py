"""What is left of credits, from ClickHouse, for the API's answers; what the figures are is said in
`warehouse.balances`.

Every question raises Refused (503) where ClickHouse does not answer, as those of `spend` do.
"""

from datetime import datetime

from api.reading.spend import Spend
from schemas.records import PoolKind
from warehouse import balances
from warehouse.balances import GrantBalance, GrantState, KindFigures, PoolFigures, PoolId

__all__ = [
    "GrantBalance",
    "GrantState",
    "KindFigures",
    "PoolFigures",
    "PoolId",
    "grants_page",
    "organization_figures",
    "pool_figures",
    "pools_page",
]


def pool_figures(
    spend: Spend, organization_id: str, pool_kind: PoolKind, pool_id: str, now: datetime
) -> PoolFigures:
    """One pool as it is shown; all zeros where it never had credits."""
    return balances.pool_figures(spend.query, organization_id, pool_kind, pool_id, now)


def organization_figures(spend: Spend, organization_id: str, now: datetime) -> PoolFigures:
    """The sums over all pools of an organization."""
    return balances.organization_figures(spend.query, organization_id, now)


def pools_page(
    spend: Spend,
    organization_id: str,
    now: datetime,
    *,
    limit: int,
    after: PoolId | None = None,
    pool_kind: PoolKind | None = None,
    pool_id: str | None = None,
) -> list[PoolFigures]:
    """At most `limit` pools behind `after`, in the order of kind and id."""
    return balances.list_pools(
        spend.query,
        organization_id,
        now,
        pool_kind=pool_kind,
        pool_id=pool_id,
        after=after,
        limit=limit,
    )


def grants_page(
    spend: Spend,
    organization_id: str,
    pool: PoolId,
    *,
    limit: int,
    before: tuple[int, str] | None = None,
) -> list[GrantBalance]:
    """At most `limit` grants of a pool, the latest first, from before the last of another page."""
    return balances.list_grants(
        spend.query,
        organization_id,
        pool_kind=pool[0],
        pool_id=pool[1],
        before=before,
        limit=limit,
    )
