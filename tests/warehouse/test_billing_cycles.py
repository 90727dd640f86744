"""Billing cycles in SQL are those of the one calendar, and follow the facts."""

from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.cycles import BillingCalendar, CalendarChange
from schemas.records import FactApplied
from schemas.settings import Settings
from sinks.cycles import CycleWriter
from sinks.inserts import Inserter
from tests.sinks.feed import fact_applied, rated_event
from tests.warehouse.conftest import Put

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)


def settings_fact(
    version: int, effective_at: datetime, anchor: int, zone: str, **more: Any
) -> FactApplied:
    kind = "organization_created" if version == 1 else "organization_settings"
    fact = f'{{"type":"{kind}","billing_anchor_day":{anchor},"time_zone":"{zone}"}}'
    return fact_applied(version, kind, effective_at=effective_at, fact=fact, **more)


async def write(settings: Settings, now: datetime = NOW) -> int:
    inserter = Inserter(settings)
    try:
        return await CycleWriter(inserter).write(now)
    finally:
        await inserter.close()


def cycles_in_sql(client: Any, organization_id: str) -> list[tuple[datetime, datetime, str]]:
    rows = client.query(
        "SELECT starts_at, ends_at, time_zone FROM billing_cycles "
        "WHERE organization_id = {organization:String} ORDER BY starts_at",
        parameters={"organization": organization_id},
    ).result_rows
    return [(start, end, zone) for start, end, zone in rows]


async def test_cycles_in_sql_are_those_of_the_calendar(
    settings: Settings, client: Any, put: Put
) -> None:
    changes = [
        CalendarChange(datetime(2026, 1, 10, 12, tzinfo=UTC), 1, 1, "UTC"),
        CalendarChange(datetime(2026, 3, 20, 12, 0, 0, 1, tzinfo=UTC), 4, 15, "Asia/Tokyo"),
        CalendarChange(datetime(2026, 6, 20, tzinfo=UTC), 9, 31, "America/New_York"),
    ]
    facts = [
        settings_fact(one.version, one.effective_at, one.anchor_day, one.time_zone)
        for one in changes
    ]
    put("facts_applied_rows", [*facts, *facts])
    put("facts_applied_rows", [settings_fact(1, NOW, 9, "UTC", organization_id="org_2")])
    assert await write(settings) == 2
    calendar = BillingCalendar(changes)
    rows = cycles_in_sql(client, "org_1")
    expected = calendar.cycles_between(rows[0][0], NOW + timedelta(days=1000))
    assert rows[: len(expected)] == [(one.start, one.end, one.time_zone) for one in expected]
    assert rows[0][0] < changes[0].effective_at - timedelta(days=700)
    assert await write(settings) == 0

    put("facts_applied_rows", [settings_fact(12, NOW, 5, "UTC", organization_id="org_1")])
    assert await write(settings) == 1
    running = [row for row in cycles_in_sql(client, "org_1") if row[0] <= NOW < row[1]]
    assert [row[1] for row in running] == [datetime(2026, 12, 5, tzinfo=UTC)]


async def test_cycles_are_extended_as_time_goes_by(
    settings: Settings, client: Any, put: Put
) -> None:
    put("facts_applied_rows", [settings_fact(1, NOW, 1, "UTC")])
    assert await write(settings, NOW - timedelta(days=800)) == 1
    assert await write(settings, datetime.now(UTC)) == 1
    assert await write(settings, datetime.now(UTC)) == 0


async def test_an_unknown_time_zone_does_not_hold_up_others(
    settings: Settings, client: Any, put: Put
) -> None:
    put("facts_applied_rows", [settings_fact(1, NOW, 1, "Mars/Olympus", organization_id="org_0")])
    put("facts_applied_rows", [settings_fact(1, NOW, 1, "UTC")])
    assert await write(settings) == 1
    assert cycles_in_sql(client, "org_0") == []


async def test_spend_by_cycle_counts_every_event_once(
    settings: Settings, client: Any, put: Put
) -> None:
    """The statement that the view's comment shows."""
    put(
        "facts_applied_rows",
        [
            settings_fact(1, NOW - timedelta(days=90), 1, "UTC"),
            settings_fact(2, NOW, 15, "Europe/Berlin"),
        ],
    )
    await write(settings)
    days = [NOW + timedelta(hours=6 * number) for number in range(-300, 300)]
    put("usage_rated_rows", [rated_event(n, event_time=day) for n, day in enumerate(days, 1)])
    rows = client.query(
        "SELECT c.starts_at, c.ends_at, s.group_name, toString(sum(s.credits)), sum(s.money) "
        "FROM spend AS s ASOF JOIN billing_cycles AS c "
        "ON s.organization_id = c.organization_id AND s.event_time >= c.starts_at "
        "WHERE s.organization_id = 'org_1' GROUP BY ALL ORDER BY ALL"
    ).result_rows
    calendar = BillingCalendar(
        [
            CalendarChange(NOW - timedelta(days=90), 1, 1, "UTC"),
            CalendarChange(NOW, 2, 15, "Europe/Berlin"),
        ]
    )
    expected: dict[datetime, int] = {}
    for number, day in enumerate(days, 1):
        start = calendar.cycle_at(day).start
        expected[start] = expected.get(start, 0) + number
    assert {row[0]: round(float(row[3]) * 1_000_000) for row in rows} == expected
