"""Periods are half-open, follow the billing anchor and time zone, and fit together."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.amounts import micro_text, pico_text
from warehouse.periods import PeriodError, parse_period


@pytest.mark.parametrize(
    ("text", "anchor", "zone", "start", "end"),
    [
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
    period = parse_period(text, anchor_day=anchor, time_zone=zone)

    assert period.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert period.end == datetime.fromisoformat(end).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "2026-1",
        "2026-11-31..2026-12-01",
        "2026-11-02..2026-11-01",
    ],
)
def test_what_is_no_period_says_so(text: str) -> None:
    with pytest.raises(PeriodError):
        parse_period(text)


def test_an_unknown_time_zone_says_so() -> None:
    with pytest.raises(PeriodError, match="no time zone"):
        parse_period("2026-11", time_zone="Mars/Olympus")


@given(
    year=st.integers(2000, 2100),
    month=st.integers(1, 12),
    anchor=st.integers(1, 31),
    zone=st.sampled_from(["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland"]),
)
def test_months_follow_each_other_without_gap_or_overlap(
    year: int, month: int, anchor: int, zone: str
) -> None:
    following = f"{year + month // 12}-{month % 12 + 1:02d}"
    this = parse_period(f"{year}-{month:02d}", anchor_day=anchor, time_zone=zone)

    assert this.end == parse_period(following, anchor_day=anchor, time_zone=zone).start


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (-1, "-0.000001"),
        (1_500_000, "1.50"),
        (-12_345_678, "-12.345678"),
        (2**63 * 1000, "9223372036854775.808"),
    ],
)
def test_amounts_are_exact(micro: int, text: str) -> None:
    assert micro_text(micro) == text


def test_money_is_exact_to_the_last_digit() -> None:
    assert pico_text(10_000 * 3) == "0.00000003"
