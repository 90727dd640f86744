"""Billing cycles: the month-long periods between an organization's anchor days.

Pure. A cycle begins at midnight of the anchor day in the organization's time zone, and on the
last day of shorter months; it is half-open.
"""

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Cycle:
    """`start <= time < end`, in UTC."""

    start: datetime
    end: datetime


def cycle_at(moment: datetime, anchor_day: int, time_zone: str) -> Cycle:
    """The cycle that holds this moment."""
    zone = ZoneInfo(time_zone)
    return cycle_of(moment.astimezone(zone).date(), anchor_day, time_zone)


def cycle_of(day: date, anchor_day: int, time_zone: str) -> Cycle:
    """The cycle that holds this day of the organization's calendar."""
    zone = ZoneInfo(time_zone)
    year, month = day.year, day.month
    if day < _anchor(year, month, anchor_day):
        year, month = _add_months(year, month, -1)
    begin = _anchor(year, month, anchor_day)
    end = _anchor(*_add_months(year, month, 1), anchor_day)
    return Cycle(_midnight(begin, zone), _midnight(end, zone))


def _anchor(year: int, month: int, anchor_day: int) -> date:
    return date(year, month, min(anchor_day, calendar.monthrange(year, month)[1]))


def _add_months(year: int, month: int, months: int) -> tuple[int, int]:
    index = year * 12 + month - 1 + months
    return index // 12, index % 12 + 1


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
