"""Answers about what is left of credits, ours and AthenaHQ's. Ours are in micro-credits."""

from datetime import datetime
from typing import Any

import msgspec
from pydantic import BaseModel, Field

from api.reading.balances import GrantBalance, GrantState, KindFigures, PoolFigures
from api.web.shapes.common import iso
from api.web.shapes.v1 import GROUP, TIME, PoolKind
from schemas.records import MICRO


class OneTimeCredits(BaseModel):
    """Of the one-time grants that are live; one that is used up counts until another begins
    after its last use. So a pool whose one-time credits are all used shows them as used."""

    total_micro: int = Field(
        examples=[500_000_000],
        description="Always `used_micro + remaining_micro`: what these grants were when they "
        "began, after they repaid debt, without what was revoked, adjusted away or forfeited.",
    )
    used_micro: int = Field(examples=[330_000_000], description="What usage took from them.")
    remaining_micro: int = Field(examples=[170_000_000])


class MonthlyCredits(OneTimeCredits):
    """Of the monthly grants whose period runs now. They do not roll over."""

    next_reset_at: datetime | None = Field(
        examples=[TIME], description="When the first of these periods ends; null without any."
    )


class CreditFigures(BaseModel):
    """What can be spent now, and what is owed."""

    monthly: MonthlyCredits
    one_time: OneTimeCredits
    debt_micro: int = Field(
        examples=[0],
        description="What was spent of credits that were taken back since. Grants to come repay it "
        "first; what is left now can be spent all the same.",
    )
    balance_micro: int = Field(
        examples=[170_000_000],
        description="What can be spent now, minus the debt: both `remaining_micro` - `debt_micro`.",
    )
    upcoming_micro: int = Field(
        examples=[0], description="What begins later, as a next month that is in place already."
    )
    expired_micro: int = Field(
        examples=[0],
        description="What has expired, but still pays for late usage until it is forfeited.",
    )


class PoolBalance(CreditFigures):
    pool_kind: PoolKind
    pool_id: str = Field(examples=[GROUP])
    name: str = Field(examples=["Research"])
    is_deleted: bool = Field(description="Whether its group was deleted.")


class PoolBalances(BaseModel):
    """Pools that ever had credits. A page may have fewer than its `limit`."""

    items: list[PoolBalance]
    next_cursor: str | None


class PoolGrant(BaseModel):
    """`remaining_micro` is `issued - repaid - (revoked - owed) - forfeited - adjusted - used`."""

    id: str = Field(examples=["grant_42"])
    kind: str = Field(examples=["monthly"], description="`monthly` or `one_time`")
    source: str = Field(
        examples=["stripe:in_1"],
        description="`stripe:…`, `partner:…`, `admin:…`, or `adjustment:` with its reason.",
    )
    state: GrantState = Field(
        examples=["live"],
        description="`revoked` whole, `upcoming`, `expired`, `used` up, or `live`.",
    )
    effective_at: datetime = Field(examples=[TIME])
    expires_at: datetime | None
    issued_micro: int = Field(examples=[500_000_000])
    repaid_micro: int = Field(examples=[0], description="Of it repaid the pool's debt, at once.")
    revoked_micro: int = Field(examples=[0], description="Taken back.")
    owed_micro: int = Field(examples=[0], description="Of that had been spent, and became debt.")
    forfeited_micro: int = Field(examples=[0], description="Gone with its period or its group.")
    adjusted_micro: int = Field(examples=[0], description="Taken by negative adjustments.")
    used_micro: int = Field(examples=[330_000_000])
    remaining_micro: int = Field(examples=[170_000_000])


class PoolByGrant(PoolBalance):
    """A pool with its grants, the latest first, in pages."""

    grants: list[PoolGrant]
    next_cursor: str | None


class AthenaMonthly(BaseModel):
    balance: float = Field(examples=[300])
    next_reset_at: int | None = Field(
        examples=[1_772_227_690_021], description="Milliseconds since 1970; null without any."
    )


class AthenaOneOff(BaseModel):
    balance: float = Field(examples=[200.5])


class AthenaCredits(BaseModel):
    total: float = Field(examples=[500.5], description="The sum of both balances.")
    monthly: AthenaMonthly
    one_off: AthenaOneOff


class AthenaAnswer(BaseModel):
    """What can be spent now, in credits: numbers with as many decimals (up to six) as they have."""

    credits: AthenaCredits


def shown_kind(figures: KindFigures) -> dict[str, int]:
    return {
        "total_micro": figures.total_micro,
        "used_micro": figures.used_micro,
        "remaining_micro": figures.remaining_micro,
    }


def shown_figures(figures: PoolFigures) -> dict[str, Any]:
    """The fields of `CreditFigures`, for every answer that shows a pool."""
    reset_at = figures.monthly.next_reset_at
    return {
        "monthly": shown_kind(figures.monthly)
        | {"next_reset_at": iso(reset_at) if reset_at else None},
        "one_time": shown_kind(figures.one_time),
        "debt_micro": figures.debt_micro,
        "balance_micro": figures.balance_micro,
        "upcoming_micro": figures.upcoming_micro,
        "expired_micro": figures.expired_micro,
    }


def shown_pool(figures: PoolFigures, name: str, is_deleted: bool) -> dict[str, Any]:
    return {
        "pool_kind": figures.pool_kind,
        "pool_id": figures.pool_id,
        "name": name,
        "is_deleted": is_deleted,
        **shown_figures(figures),
    }


def shown_grant(grant: GrantBalance, now: datetime) -> dict[str, Any]:
    return {
        "id": grant.grant_id,
        "kind": grant.kind,
        "source": grant.source,
        "state": grant.state(now),
        "effective_at": iso(grant.effective_at),
        "expires_at": iso(grant.expires_at) if grant.expires_at else None,
        "issued_micro": grant.issued_micro,
        "repaid_micro": grant.repaid_micro,
        "revoked_micro": grant.revoked_micro,
        "owed_micro": grant.owed_micro,
        "forfeited_micro": grant.forfeited_micro,
        "adjusted_micro": grant.adjusted_micro,
        "used_micro": grant.used_micro,
        "remaining_micro": grant.remaining_micro,
    }


def shown_as_athena(figures: PoolFigures) -> dict[str, Any]:
    monthly, one_time = figures.monthly, figures.one_time
    reset_at = monthly.next_reset_at
    return {
        "credits": {
            "total": _credits(monthly.remaining_micro + one_time.remaining_micro),
            "monthly": {
                "balance": _credits(monthly.remaining_micro),
                "next_reset_at": int(reset_at.timestamp() * 1000) if reset_at else None,
            },
            "one_off": {"balance": _credits(one_time.remaining_micro)},
        }
    }


def _credits(micro: int) -> msgspec.Raw:
    """A JSON number of credits, exact: a float could not say every micro-credit."""
    whole, fraction = divmod(abs(micro), MICRO)
    decimals = f"{fraction:06d}".rstrip("0")
    text = f"{'-' if micro < 0 else ''}{whole}{'.' if decimals else ''}{decimals}"
    return msgspec.Raw(text.encode())
