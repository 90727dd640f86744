"""Billing cycles: anchor days, short months, time zones."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.rules.cycle import cycle_at, cycle_of

EARLIEST = datetime(2001, 1, 1)  # noqa: DTZ001 - hypothesis wants naive bounds
LATEST = datetime(2199, 1, 1)  # noqa: DTZ001
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu")


@pytest.mark.parametrize(
    ("day", "anchor", "zone", "start", "end"),
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
    ],
)
def test_cycles(day: str, anchor: int, zone: str, start: str, end: str) -> None:
    cycle = cycle_of(date.fromisoformat(day), anchor, zone)
    assert cycle.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert cycle.end == datetime.fromisoformat(end).replace(tzinfo=UTC)


@given(
    st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC)),
    st.integers(1, 31),
    st.sampled_from(ZONES),
)
def test_cycles_follow_each_other_without_gaps(moment: datetime, anchor: int, zone: str) -> None:
    cycle = cycle_at(moment, anchor, zone)
    assert cycle.start <= moment < cycle.end
    assert timedelta(days=26) < cycle.end - cycle.start < timedelta(days=33)
    assert cycle_at(cycle.end, anchor, zone).start == cycle.end
