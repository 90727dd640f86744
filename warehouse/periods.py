"""What `2026-11` means for an organization. Pure; half-open, in UTC.

A month runs from the organization's billing anchor day to the next one, in its time zone. In a
month that lacks the day, the last day stands for it.
"""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTH: Final = re.compile(r"(\d{4})-(\d{2})")
_DAYS: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.\.(\d{4}-\d{2}-\d{2})")


class PeriodError(ValueError):
    """The text is no period."""


@dataclass(frozen=True, slots=True)
class Period:
    """`start <= time < end`; both in UTC. Days are counted in `time_zone`."""

    start: datetime
    end: datetime
    time_zone: str


def parse_period(text: str, *, anchor_day: int = 1, time_zone: str = "UTC") -> Period:
    """`2026-11`, or `2026-11-01..2026-11-15` with both days included. Raises `PeriodError`."""
    zone = _zone(time_zone)
    month, days = _MONTH.fullmatch(text), _DAYS.fullmatch(text)
    try:
        if month:
            year, number = int(month[1]), int(month[2])
            first = _anchored(year, number, anchor_day)
            after = _anchored(year + number // 12, number % 12 + 1, anchor_day)
        elif days:
            first = date.fromisoformat(days[1])
            after = date.fromisoformat(days[2]) + timedelta(days=1)
        else:
            raise ValueError
        start, end = _midnight(first, zone), _midnight(after, zone)
    except (ValueError, OverflowError) as error:
        raise PeriodError(
            f"{text!r} is no period: give a month (2026-11) or days (2026-11-01..2026-11-15)"
        ) from error
    if start >= end:
        raise PeriodError(f"{text!r} ends before it begins")
    return Period(start, end, time_zone)


def _anchored(year: int, month: int, day: int) -> date:
    return date(year, month, min(day, calendar.monthrange(year, month)[1]))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise PeriodError(f"{name!r} is no time zone") from error
