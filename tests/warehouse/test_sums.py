"""No sum of ours wraps around: everything that adds up amounts does so in 128 bits."""

import re
from pathlib import Path
from typing import Any

import pytest

from api.reading.spend import Spend, quotient
from api.reading.usage import EventFilter, daily_usage, list_events
from cli.up.directions import SPEND
from schemas.cycles import BillingCalendar
from schemas.records import MICRO
from schemas.settings import Settings
from tests.sinks.feed import NOON, posting, rated_event
from tests.warehouse.conftest import Put

LARGE = 2**62 - 1
ROWS = 5
README = Path(__file__).resolve().parents[2] / "README.md"
AMOUNTS = (
    "quantity_micro",
    "cost_micro",
    "website_debit_micro",
    "group_debit_micro",
    "overage_micro",
)
VIEWS = {
    "usage_rated": AMOUNTS,
    "usage_known_now": AMOUNTS,
    "spend": (*AMOUNTS, "money_pico"),
    "spend_known_now": (*AMOUNTS, "money_pico"),
    "ledger": ("amount_micro",),
}


def large(number: int, **changes: Any) -> Any:
    third = LARGE // 3
    return rated_event(
        number,
        organization_id="org_7",
        website_debit_micro=third,
        group_debit_micro=third,
        overage_micro=LARGE - 2 * third,
        cost_micro=LARGE,
        quantity_micro=LARGE,
        **changes,
    )


@pytest.fixture
def filled(put: Put) -> list[Any]:
    rows = [large(number, event_time=NOON) for number in range(1, ROWS)]
    rows.append(large(1, event_time=NOON, revision=9))
    put("usage_rated_rows", rows)
    put(
        "ledger_rows",
        [posting(number, organization_id="org_7", amount_micro=LARGE) for number in range(ROWS)],
    )
    return rows


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_reader_sums_is_exact(client: Any, filled: list[Any], view: str) -> None:
    """As a person writes it, without a thought of 128 bits."""
    for column in VIEWS[view]:
        summed = client.query(
            f"SELECT sum({column}), sumMap(map('all', {column})) FROM {view}"
        ).result_rows[0]
        expected = sum(getattr(row, column, LARGE) for row in filled)
        if column == "money_pico":
            expected = ROWS * LARGE * 10_000
        assert summed == (expected, {"all": expected})


def test_the_finance_examples_are_exact(client: Any, filled: list[Any], settings: Settings) -> None:
    example = re.search(r'--data "(SELECT group_name.*?)"', README.read_text(), re.DOTALL)
    assert example
    statement = re.sub(r"\n>\s*", " ", example[1]).replace(" FORMAT CSVWithNames", "")
    statement = statement.replace("metering.", f"{settings.clickhouse_database}.")
    overage = sum(row.overage_micro for row in filled)
    assert client.query(statement).result_rows == [("group_a", ROWS * LARGE, overage)]
    assert client.query(SPEND).result_rows == [("group_a", ROWS * LARGE)]


def test_the_api_sums_exactly(client: Any, filled: list[Any], settings: Settings) -> None:
    spend = Spend(settings)
    start = int(NOON.timestamp() * 1000)
    try:
        (day,) = daily_usage(spend, "org_7", start, start + 1, "UTC").values()
        events = list_events(spend, EventFilter("org_7", start, start, None, {}), 10, 0)
        cycle = BillingCalendar().cycle_at(NOON)
        by_group = spend.by_group("org_7", cycle, {"group_a"})
    finally:
        spend.close()
    assert day.usageEvents == ROWS - 1
    assert day.quantities == {"ai.tokens": quotient(ROWS * LARGE, MICRO)}
    corrected = next(event for event in events if event.quantity_micro != LARGE)
    assert corrected.quantity_micro == 2 * LARGE
    assert corrected.overage_micro == 2 * filled[0].overage_micro
    assert by_group["group_a"].micro == ROWS * LARGE
