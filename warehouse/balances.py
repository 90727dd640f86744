"""What is left of credits, from the view `pool_balances`: each pool in a few figures, and by grant.

The figures of a kind are `used`, `remaining` and their sum, `total`: what its live grants were when
they began, after they repaid debt and without what was revoked, adjusted away or forfeited since.
Live are those with `effective_at <= now < expires_at`. So of monthly credits they start anew with
each period. One-time credits may have no end; of them a grant that is used up counts until another
begins after its last use: who has used everything sees all of it as used, and who then buys again
starts with what was bought.

A grant counts once its fact and its ledger entry are here, whichever comes first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from schemas.records import PoolKind

Query = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]
"""Asks ClickHouse: a statement and its parameters; the rows."""

PoolId = tuple[PoolKind, str]
GrantState = Literal["live", "upcoming", "expired", "used", "revoked"]

_POOLS: Final = """
WITH {now:DateTime64(6, 'UTC')} AS asked_at
SELECT
    {names},
    sumIf(used_micro, is_monthly),
    sumIf(remaining_micro, is_monthly),
    minOrNullIf(expires_at, is_monthly AND revoked_micro < issued_micro),
    sumIf(used_micro, is_one_time),
    sumIf(remaining_micro, is_one_time),
    sum(debt_micro),
    sumIf(remaining_micro, grant_id != '' AND NOT has_begun),
    sumIf(remaining_micro, has_begun AND NOT is_live)
FROM
(
    SELECT
        *,
        ifNull(effective_at <= asked_at, false) AS has_begun,
        has_begun AND ifNull(expires_at > asked_at, true) AS is_live,
        is_live AND kind = 'monthly' AS is_monthly,
        maxIf(effective_at, has_begun AND kind = 'one_time' AND revoked_micro < issued_micro)
            OVER (PARTITION BY pool_kind, pool_id) AS last_begun_at,
        is_live AND kind = 'one_time'
            AND (remaining_micro > 0 OR ifNull(last_used_at >= last_begun_at, false)) AS is_one_time
    FROM pool_balances
    WHERE organization_id = {organization:String}
        AND (grant_id = '' OR issued_micro > 0 AND kind != ''){conditions}
)
GROUP BY {names}
ORDER BY {names}
LIMIT {limit:UInt32}
"""
_EACH_POOL: Final = _POOLS.replace("{names}", "pool_kind, pool_id")
_ALL_POOLS: Final = _POOLS.replace("{names}", "'organization', ''").replace("{conditions}", "")
_GRANTS: Final = """
SELECT
    pool_kind, pool_id, grant_id, kind, source, effective_at, expires_at, issued_micro,
    repaid_micro, revoked_micro, owed_micro, forfeited_micro, adjusted_micro, used_micro,
    remaining_micro
FROM pool_balances
WHERE organization_id = {organization:String} AND kind != '' AND issued_micro > 0{conditions}
ORDER BY pool_kind, pool_id, effective_at DESC, grant_id DESC
LIMIT {limit:UInt32}
"""
EVERYTHING: Final = 2**32 - 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class KindFigures:
    """The monthly or the one-time credits of a pool, in micro-credits."""

    used_micro: int = 0
    remaining_micro: int = 0
    next_reset_at: datetime | None = None
    """Of monthly credits: when the first of the live grants expires."""

    @property
    def total_micro(self) -> int:
        return self.used_micro + self.remaining_micro


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """What is shown of a pool. `monthly` and `one_time` are what can be spent now; what the pool
    owes is repaid by grants to come, and takes nothing from them."""

    pool_kind: PoolKind | Literal["organization"]
    """`organization`, with an empty id, where it is the sum over all pools."""
    pool_id: str
    monthly: KindFigures = field(default_factory=KindFigures)
    one_time: KindFigures = field(default_factory=KindFigures)
    debt_micro: int = 0
    upcoming_micro: int = 0
    """What begins later, as the next month that is in place already."""
    expired_micro: int = 0
    """What has expired, but still pays for late usage until it is forfeited."""

    @property
    def balance_micro(self) -> int:
        """What can be spent now, minus the debt."""
        return self.monthly.remaining_micro + self.one_time.remaining_micro - self.debt_micro

    @property
    def held_micro(self) -> int:
        """All that the pool holds, minus the debt: the balance that the worker keeps."""
        return self.balance_micro + self.upcoming_micro + self.expired_micro


@dataclass(frozen=True, slots=True)
class GrantBalance:
    """A grant and what became of it; `remaining_micro` is `issued - repaid - (revoked - owed) -
    forfeited - adjusted - used`, each as in the view."""

    pool_kind: PoolKind
    pool_id: str
    grant_id: str
    kind: str
    source: str
    effective_at: datetime
    expires_at: datetime | None
    issued_micro: int
    repaid_micro: int
    revoked_micro: int
    owed_micro: int
    forfeited_micro: int
    adjusted_micro: int
    used_micro: int
    remaining_micro: int

    @property
    def effective_us(self) -> int:
        """`effective_at` in microseconds since 1970."""
        return (self.effective_at - EPOCH) // timedelta(microseconds=1)

    def state(self, now: datetime) -> GrantState:
        """`revoked` whole, not begun, over, used up (or otherwise gone), or live."""
        if self.revoked_micro >= self.issued_micro:
            return "revoked"
        if self.effective_at > now:
            return "upcoming"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "live" if self.remaining_micro > 0 else "used"


def pool_figures(
    query: Query, organization_id: str, pool_kind: PoolKind, pool_id: str, now: datetime
) -> PoolFigures:
    """One pool; all zeros where it never had credits."""
    found = list_pools(query, organization_id, now, pool_kind=pool_kind, pool_id=pool_id)
    return found[0] if found else PoolFigures(pool_kind, pool_id)


def organization_figures(query: Query, organization_id: str, now: datetime) -> PoolFigures:
    """The sums over all pools, and the first reset among them."""
    parameters = {"organization": organization_id, "now": stamp(now), "limit": 1}
    rows = query(_ALL_POOLS, parameters)
    return _figures(rows[0]) if rows else PoolFigures("organization", "")


def list_pools(
    query: Query,
    organization_id: str,
    now: datetime,
    *,
    pool_kind: PoolKind | None = None,
    pool_id: str | None = None,
    after: PoolId | None = None,
    limit: int = EVERYTHING,
) -> list[PoolFigures]:
    """Pools that ever had credits, those of deleted groups too, in the order of kind and id."""
    conditions, parameters = _conditions(pool_kind, pool_id)
    if after is not None:
        conditions += " AND (pool_kind, pool_id) > ({after_kind:String}, {after_id:String})"
        parameters |= {"after_kind": after[0], "after_id": after[1]}
    rows = query(
        _EACH_POOL.replace("{conditions}", conditions),
        {**parameters, "organization": organization_id, "now": stamp(now), "limit": limit},
    )
    return [_figures(row) for row in rows]


def list_grants(
    query: Query,
    organization_id: str,
    *,
    pool_kind: PoolKind | None = None,
    pool_id: str | None = None,
    before: tuple[int, str] | None = None,
    limit: int = EVERYTHING,
) -> list[GrantBalance]:
    """Grants by pool, the latest first; of one pool `before` is where a page ended
    (`effective_us` and id of its last)."""
    conditions, parameters = _conditions(pool_kind, pool_id)
    if before is not None:
        conditions += (
            " AND (toUnixTimestamp64Micro(assumeNotNull(effective_at)), grant_id)"
            " < ({before_us:Int64}, {before_id:String})"
        )
        parameters |= {"before_us": before[0], "before_id": before[1]}
    rows = query(
        _GRANTS.replace("{conditions}", conditions),
        {**parameters, "organization": organization_id, "limit": limit},
    )
    return [_grant(row) for row in rows]


def stamp(moment: datetime) -> str:
    """A time as a parameter of a statement."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"


def _conditions(pool_kind: PoolKind | None, pool_id: str | None) -> tuple[str, dict[str, Any]]:
    conditions, parameters = "", {}
    for name, value in (("pool_kind", pool_kind), ("pool_id", pool_id)):
        if value is not None:
            conditions += f" AND {name} = {{{name}:String}}"
            parameters[name] = value
    return conditions, parameters


def _figures(row: Sequence[Any]) -> PoolFigures:
    kind, pool_id, used, remaining, next_reset_at, *rest = row
    monthly = KindFigures(used, remaining, _utc(next_reset_at))
    one_time_used, one_time_remaining, *others = rest
    one_time = KindFigures(one_time_used, one_time_remaining)
    return PoolFigures(kind, pool_id, monthly, one_time, *others)


def _grant(row: Sequence[Any]) -> GrantBalance:
    pool_kind, pool_id, grant_id, kind, source, effective_at, expires_at, *amounts = row
    begins_at, ends_at = _utc(effective_at), _utc(expires_at)
    return GrantBalance(pool_kind, pool_id, grant_id, kind, source, begins_at, ends_at, *amounts)


def _utc(moment: Any) -> Any:
    return None if moment is None else moment.astimezone(UTC)
