"""The one calendar: billing cycles and periods, for worker, control plane, reports and SQL alike.

Pure. A cycle begins at midnight of the anchor day in the organization's time zone (on the last day
of months that lack the day) and ends where the next one begins. Cycles are a chain: when anchor or
zone change, the running cycle ends where the first cycle by the new settings begins, so that every
instant is in exactly one cycle, whatever the settings were before and after. A change can so make
one cycle shorter or longer than a month, never two that overlap.

A cycle or period is half-open (`start <= time < end`) and in UTC.
"""

import calendar
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTH: Final = re.compile(r"(\d{4})-(\d{2})")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAYS: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.\.(\d{4}-\d{2}-\d{2})")
_ZONES_APART: Final = timedelta(days=2)
"""More than a local date and the date in UTC ever differ by."""


class PeriodError(ValueError):
    """The text is no period, or no cycle begins in it."""


@dataclass(frozen=True, slots=True)
class CalendarChange:
    """What an organization's settings say about its calendar from `effective_at` on."""

    effective_at: datetime
    version: int
    """Of the fact; of two changes with the same `effective_at` the greater version holds."""
    anchor_day: int
    time_zone: str


@dataclass(frozen=True, slots=True)
class Cycle:
    """`start <= time < end`, in UTC. Days within it are counted in `time_zone`."""

    start: datetime
    end: datetime
    time_zone: str


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a cycle begins, and the day of the organization's calendar that this is."""

    at: datetime
    day: date
    time_zone: str


class BillingCalendar:
    """The cycles of one organization. Before its first settings, those hold; without any, months
    in UTC do. Raises PeriodError for a time zone that does not exist."""

    def __init__(self, changes: Iterable[CalendarChange] = ()) -> None:
        ordered = sorted(changes, key=lambda change: (change.effective_at, change.version))
        first = datetime.min.replace(tzinfo=UTC)
        self._changes = ordered or [CalendarChange(first, 0, 1, "UTC")]
        # The first change has no beginning, and the last one no end.
        self._begins = [first, *(change.effective_at for change in self._changes[1:])]
        self._ends = [*self._begins[1:], None]
        self._zones = {change.time_zone: _zone(change.time_zone) for change in self._changes}

    def cycle_at(self, moment: datetime) -> Cycle:
        """The cycle that holds this moment. Raises OverflowError at the ends of all time."""
        start = next(self._starts_back_from(moment))
        end = next(start for start in self._starts_from(moment) if start.at > moment)
        return Cycle(start.at, end.at, start.time_zone)

    def cycle_of_day(self, day: date) -> Cycle:
        """The cycle that holds this day of the organization's calendar."""
        following = self._first_start_on(day + timedelta(days=1))
        return self.cycle_at(following.at - timedelta(microseconds=1))

    def month(self, year: int, month: int) -> Cycle:
        """From the first cycle that begins in this month of the organization's calendar to the
        first that begins after it: one cycle, unless a change of settings made two begin in it.
        Raises PeriodError where none does."""
        first = self._first_start_on(date(year, month, 1))
        after = self._first_start_on(date(*_add_months(year, month, 1), 1))
        if first.at == after.at:
            running = self.cycle_at(first.at - timedelta(microseconds=1))
            raise PeriodError(
                f"no cycle begins in {year:04}-{month:02}: the settings were changed, and one "
                f"cycle runs from {running.start:%Y-%m-%d %H:%M} to {running.end:%Y-%m-%d %H:%M} "
                "UTC; name it by one of its days (2026-11-15)"
            )
        return Cycle(first.at, after.at, first.time_zone)

    def period(self, text: str) -> Cycle:
        """`2026-11` is a month's cycle, `2026-11-15` the cycle that holds this day, and
        `2026-11-01..2026-11-15` the days themselves, both included. Raises PeriodError."""
        month, days = _MONTH.fullmatch(text), _DAYS.fullmatch(text)
        try:
            if month:
                return self.month(int(month[1]), int(month[2]))
            if _DAY.fullmatch(text):
                return self.cycle_of_day(date.fromisoformat(text))
            if days:
                return self._days(date.fromisoformat(days[1]), date.fromisoformat(days[2]))
            raise ValueError
        except PeriodError:
            raise
        except (ValueError, OverflowError) as error:
            raise PeriodError(
                f"{text!r} is no period: give a month (2026-11), a day of a cycle (2026-11-15) or "
                "days (2026-11-01..2026-11-15)"
            ) from error

    def cycles_between(self, first: datetime, last: datetime) -> list[Cycle]:
        """Every cycle from the one that holds `first` to the one that holds `last`."""
        cycles = [self.cycle_at(first)]
        while cycles[-1].end <= last:
            cycles.append(self.cycle_at(cycles[-1].end))
        return cycles

    def time_zone_at(self, moment: datetime) -> str:
        return self._changes[self._index(moment)].time_zone

    def _days(self, first: date, last: date) -> Cycle:
        if last < first:
            raise PeriodError(f"{first}..{last} ends before it begins")
        name = self.time_zone_at(datetime.combine(first, time(), UTC))
        zone = self._zones[name]
        return Cycle(_midnight(first, zone), _midnight(last + timedelta(days=1), zone), name)

    def _index(self, moment: datetime) -> int:
        return bisect_right(self._begins, moment) - 1

    def _first_start_on(self, day: date) -> _Start:
        """The first start whose day is this one or later."""
        earliest = datetime.combine(day, time(), UTC) - _ZONES_APART
        return next(start for start in self._starts_from(earliest) if start.day >= day)

    def _starts_from(self, moment: datetime) -> Iterator[_Start]:
        """Where cycles begin at this moment or later, in order."""
        for index in range(self._index(moment), len(self._changes)):
            begin, end = max(moment, self._begins[index]), self._ends[index]
            for start in self._months(index, begin, 1):
                if end is not None and start.at >= end:
                    break
                if start.at >= begin:
                    yield start

    def _starts_back_from(self, moment: datetime) -> Iterator[_Start]:
        """Where cycles begin at this moment or earlier, the latest first."""
        for index in range(self._index(moment), -1, -1):
            begin, end = self._begins[index], self._ends[index]
            for start in self._months(index, moment if end is None else min(moment, end), -1):
                if start.at < begin:
                    break
                if start.at <= moment and (end is None or start.at < end):
                    yield start

    def _months(self, index: int, moment: datetime, step: int) -> Iterator[_Start]:
        """The anchor days of one settings by themselves, month by month from around a moment."""
        change = self._changes[index]
        zone = self._zones[change.time_zone]
        local = moment.astimezone(zone)
        year, month = _add_months(local.year, local.month, -step)
        while True:
            last_day = calendar.monthrange(year, month)[1]
            day = date(year, month, min(change.anchor_day, last_day))
            yield _Start(_midnight(day, zone), day, change.time_zone)
            year, month = _add_months(year, month, step)


def _add_months(year: int, month: int, months: int) -> tuple[int, int]:
    index = year * 12 + month - 1 + months
    return index // 12, index % 12 + 1


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise PeriodError(f"{name!r} is no time zone") from error
