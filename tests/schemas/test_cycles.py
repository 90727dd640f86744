"""Billing cycles are a chain: anchor days, short months, time zones, and changes of all of them."""

import calendar
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.cycles import BillingCalendar, CalendarChange, Cycle, PeriodError

TICK = timedelta(microseconds=1)
FIRST, LAST = datetime(2019, 1, 1, tzinfo=UTC), datetime(2024, 12, 31, tzinfo=UTC)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Pacific/Midway",
)
MOMENTS = st.datetimes(
    FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None), timezones=st.just(UTC)
)


@st.composite
def moments_near_midnights(draw: st.DrawFn) -> datetime:
    """Within hours of the first days of a month, where a change of zone or anchor matters most."""
    month = datetime(draw(st.integers(2019, 2024)), draw(st.integers(1, 12)), 1, tzinfo=UTC)
    return month + timedelta(hours=draw(st.integers(-30, 60)))


CHANGES = st.lists(
    st.builds(
        CalendarChange,
        st.one_of(MOMENTS, moments_near_midnights()),
        st.integers(1, 1000),
        st.integers(1, 31),
        st.sampled_from(ZONES),
    ),
    max_size=6,
    unique_by=lambda change: change.version,
)


def one(anchor_day: int, time_zone: str = "UTC") -> BillingCalendar:
    return BillingCalendar([CalendarChange(FIRST, 1, anchor_day, time_zone)])


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "anchor", "zone", "start", "end"),
    [
        ("2026-11-15", 1, "UTC", "2026-11-01T00:00", "2026-12-01T00:00"),
        ("2026-11-15", 15, "UTC", "2026-11-15T00:00", "2026-12-15T00:00"),
        ("2026-11-14", 15, "UTC", "2026-10-15T00:00", "2026-11-15T00:00"),
        ("2027-02-28", 31, "UTC", "2027-02-28T00:00", "2027-03-31T00:00"),
        ("2027-03-30", 31, "UTC", "2027-02-28T00:00", "2027-03-31T00:00"),
        ("2028-02-29", 30, "UTC", "2028-02-29T00:00", "2028-03-30T00:00"),
        ("2027-01-01", 5, "UTC", "2026-12-05T00:00", "2027-01-05T00:00"),
        ("2026-11-01", 1, "Europe/Berlin", "2026-10-31T23:00", "2026-11-30T23:00"),
        ("2026-10-15", 10, "Europe/Berlin", "2026-10-09T22:00", "2026-11-09T23:00"),
        ("2026-11", 1, "UTC", "2026-11-01T00:00", "2026-12-01T00:00"),
        ("2026-12", 1, "UTC", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("2026-11", 15, "UTC", "2026-11-15T00:00", "2026-12-15T00:00"),
        ("2026-02", 31, "UTC", "2026-02-28T00:00", "2026-03-31T00:00"),
        ("2026-11", 1, "America/New_York", "2026-11-01T04:00", "2026-12-01T05:00"),
        ("2026-11-01..2026-11-15", 9, "UTC", "2026-11-01T00:00", "2026-11-16T00:00"),
        ("2026-11-01..2026-11-01", 9, "UTC", "2026-11-01T00:00", "2026-11-02T00:00"),
    ],
)
def test_period(text: str, anchor: int, zone: str, start: str, end: str) -> None:
    assert one(anchor, zone).period(text) == Cycle(at(start), at(end), zone)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "2026-1",
        "0000-01",
        "9999-12",
        "2026-11-31",
        "2026-11-31..2026-12-01",
        "2026-11-02..2026-11-01",
    ],
)
def test_what_is_no_period_says_so(text: str) -> None:
    with pytest.raises(PeriodError):
        BillingCalendar().period(text)


def test_an_unknown_time_zone_says_so() -> None:
    with pytest.raises(PeriodError, match="no time zone"):
        one(1, "Mars/Olympus")


@pytest.mark.parametrize(
    ("changed", "anchor", "zone", "cycles"),
    [
        # The running cycle ends where the first cycle by the new settings begins: sooner ...
        ("2026-11-10T12:00", 15, "UTC", "11-01T00:00 11-15T00:00 12-15T00:00"),
        # ... or later than it would have.
        ("2026-11-20T12:00", 15, "UTC", "11-01T00:00 12-15T00:00"),
        ("2026-11-15T00:00", 15, "UTC", "11-01T00:00 11-15T00:00 12-15T00:00"),
        ("2026-11-10T12:00", 1, "Europe/Berlin", "11-01T00:00 11-30T23:00 12-31T23:00"),
        ("2026-11-10T12:00", 1, "America/New_York", "11-01T00:00 12-01T05:00"),
    ],
)
def test_a_change_ends_the_running_cycle_where_the_next_begins(
    changed: str, anchor: int, zone: str, cycles: str
) -> None:
    history = BillingCalendar(
        [
            CalendarChange(at("2026-01-01T00:00"), 1, 1, "UTC"),
            CalendarChange(at(changed), 7, anchor, zone),
        ]
    )
    cycle_list = history.cycles_between(at("2026-11-05T00:00"), at("2026-12-31T23:00"))
    assert [cycle.start for cycle in cycle_list][: len(cycles.split())] == [
        at(f"2026-{start}") for start in cycles.split()
    ]
    assert history.cycle_at(at("2026-10-05T00:00")).end == at("2026-11-01T00:00")


def test_two_cycles_that_begin_in_a_month_are_that_month_and_none_says_so() -> None:
    shorter = BillingCalendar(
        [
            CalendarChange(at("2026-01-01T00:00"), 1, 1, "UTC"),
            CalendarChange(at("2026-11-10T00:00"), 2, 15, "UTC"),
        ]
    )
    assert shorter.period("2026-11") == Cycle(at("2026-11-01T00:00"), at("2026-12-15T00:00"), "UTC")
    assert shorter.period("2026-11-14").end == shorter.period("2026-11-15").start
    longer = BillingCalendar(
        [
            CalendarChange(at("2026-01-01T00:00"), 1, 31, "UTC"),
            CalendarChange(at("2026-11-10T00:00"), 2, 5, "UTC"),
        ]
    )
    with pytest.raises(PeriodError, match="from 2026-10-31 00:00 to 2026-12-05 00:00 UTC"):
        longer.period("2026-11")


@given(CHANGES, MOMENTS)
def test_every_instant_is_in_exactly_one_cycle(
    changes: list[CalendarChange], moment: datetime
) -> None:
    history = BillingCalendar(changes)
    cycle = history.cycle_at(moment)
    assert cycle.start <= moment < cycle.end
    assert history.cycle_at(cycle.start) == history.cycle_at(cycle.end - TICK) == cycle
    assert history.cycle_at(cycle.start - TICK).end == cycle.start
    assert history.cycle_at(cycle.end).start == cycle.end


@given(CHANGES)
@settings(max_examples=50)
def test_cycles_begin_where_the_settings_of_that_instant_say(changes: list[CalendarChange]) -> None:
    """The same starts as from a plain walk over all days and all settings."""
    expected = set()
    in_order = sorted(changes, key=lambda change: (change.effective_at, change.version))
    for change in changes or [CalendarChange(FIRST, 1, 1, "UTC")]:
        day = date(2018, 11, 1)
        while day < date(2025, 2, 1):
            last = calendar.monthrange(day.year, day.month)[1]
            if day.day == min(change.anchor_day, last):
                zone = ZoneInfo(change.time_zone)
                start = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
                begun = [other for other in in_order if other.effective_at <= start]
                if not changes or (begun or in_order)[-1 if begun else 0] == change:
                    expected.add(start)
            day += timedelta(days=1)
    calendar_cycles = BillingCalendar(changes).cycles_between(FIRST, LAST)
    first, last = calendar_cycles[0].start, calendar_cycles[-1].start
    assert [cycle.start for cycle in calendar_cycles] == sorted(
        start for start in expected if first <= start <= last
    )


@given(CHANGES)
@settings(max_examples=50)
def test_months_and_days_leave_no_gap_and_never_overlap(changes: list[CalendarChange]) -> None:
    history = BillingCalendar(changes)
    months = []
    for year in range(2019, 2023):
        for month in range(1, 13):
            try:
                months.append(history.month(year, month))
            except PeriodError:
                continue
    assert all(one.end == other.start for one, other in pairwise(months))
    days = [history.cycle_of_day(date(2019, 1, 1) + timedelta(days=n)) for n in range(0, 1500, 7)]
    assert all(one.start <= other.start for one, other in pairwise(days))
    for cycle in days:
        assert history.cycle_at(cycle.start) == cycle
