"""Rated events straight into ClickHouse, as the sink would write them."""

from dataclasses import dataclass, field
from datetime import datetime

from schemas.settings import Settings
from warehouse.connection import connect


@dataclass(frozen=True)
class RatedRow:
    event_id: str
    member_id: str
    group_id: str
    event_time: datetime
    cost_micro: int
    overage_micro: int = 0
    meter: str = "ai.tokens"
    subject: str = ""
    quantity_micro: int = 1_000_000
    dimensions: dict[str, str] = field(default_factory=dict)


def insert_rated(settings: Settings, rows: list[RatedRow], organization_id: str = "org_a") -> None:
    client = connect(settings)
    columns = {
        "organization_id": [organization_id] * len(rows),
        "source": ["test"] * len(rows),
        "event_id": [row.event_id for row in rows],
        "revision": [0] * len(rows),
        "event_time": [row.event_time for row in rows],
        "meter": [row.meter for row in rows],
        "subject": [row.subject or row.member_id for row in rows],
        "member_id": [row.member_id for row in rows],
        "stamped_group_id": [row.group_id for row in rows],
        "cost_micro": [row.cost_micro for row in rows],
        "group_debit_micro": [row.cost_micro - row.overage_micro for row in rows],
        "overage_micro": [row.overage_micro for row in rows],
        "quantity_micro": [row.quantity_micro for row in rows],
        "dimensions": [row.dimensions for row in rows],
        "credit_price_micro": [10_000] * len(rows),
        "currency": ["USD"] * len(rows),
        "recorded_at": [row.event_time for row in rows],
        "appended_at": [row.event_time for row in rows],
    }
    client.insert(
        "usage_rated_rows",
        list(columns.values()),
        column_names=list(columns),
        column_oriented=True,
    )
    client.close()
