"""Answers about overage: amounts in micro-credits, and as exact decimal texts."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.reading.overage import COLUMNS, OverageRow
from api.web.shapes.common import iso
from api.web.shapes.v1 import TIME

EXAMPLE_CSV = (
    f"{','.join(COLUMNS)}\n"
    "org_7,Northwind,2026-11-01T00:00:00.000Z,2026-12-01T00:00:00.000Z,UTC,USD,1,160000,0.16,0.0016\n"
)


class OverageItem(BaseModel):
    """One organization's overage of a period in one currency; `start <= time < end`."""

    organization_id: str = Field(examples=["org_7"])
    organization_name: str = Field(examples=["Northwind"])
    start: datetime = Field(examples=[TIME])
    end: datetime = Field(examples=["2026-12-01T00:00:00.000Z"])
    time_zone: str = Field(examples=["UTC"])
    currency: str = Field(examples=["USD"])
    events: int = Field(examples=[1], description="Events that had overage.")
    overage_micro: int = Field(examples=[160_000], description="Micro-credits.")
    overage_credits: str = Field(examples=["0.16"], description="Exact, a decimal text.")
    money: str = Field(
        examples=["0.0016"],
        description="Exact, in the currency's unit: the overage of each event times the price of a "
        "credit that was stamped on it.",
    )


class Overage(BaseModel):
    """One row a currency; usually one, and none without overage."""

    start: datetime = Field(examples=[TIME])
    end: datetime = Field(examples=["2026-12-01T00:00:00.000Z"])
    time_zone: str = Field(examples=["UTC"])
    items: list[OverageItem]


class OveragePage(BaseModel):
    """A page looks at `limit` organizations and shows those of them that have overage."""

    items: list[OverageItem]
    next_cursor: str | None


def shown_overage(row: OverageRow, name: str) -> dict[str, Any]:
    return {
        "organization_id": row.organization_id,
        "organization_name": name,
        "start": iso(row.period.start),
        "end": iso(row.period.end),
        "time_zone": row.period.time_zone,
        "currency": row.currency,
        "events": row.events,
        "overage_micro": row.overage_micro,
        "overage_credits": row.credits,
        "money": row.money,
    }
