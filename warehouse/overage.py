"""Overage of organizations in a period: what no credits were left for, as it can be invoiced.

What an event cost beyond the credits of its moment stands in its row for good: credits that come
later, also those that take effect earlier, pay for later events only. So the sums of a period that
is over change only by events that come late, and by corrections.

Money is exact: every event's overage times the price of a credit that was stamped on it, as a whole
number of 10^-12 of the currency's unit (`money_pico`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.cycles import BillingCalendar, CalendarChange, Cycle, PeriodError
from warehouse.amounts import micro_text, pico_text
from warehouse.balances import Query, stamp
from warehouse.organizations import calendar_change

_SETTINGS: Final = """
SELECT organization_id, effective_at, version, fact FROM facts_applied
WHERE topic = 'memberships' AND type IN ('organization_created', 'organization_settings')
"""
_OVERAGE: Final = """
SELECT
    organization_id,
    toString(currency),
    countIf(revision = 0 AND overage_micro > 0),
    sum(overage_micro) AS total_micro,
    sum(overage_micro * credit_price_micro) AS total_pico
FROM usage_rated
WHERE organization_id >= {first:String} AND organization_id <= {last:String}
    AND event_time >= {start:DateTime64(6, 'UTC')} AND event_time < {end:DateTime64(6, 'UTC')}
GROUP BY organization_id, currency
HAVING total_micro != 0 OR total_pico != 0
"""
# A range and no list of ids, which would be too long for a request; rows are kept in the order of
# the id, so a range that is mostly asked for is also read at once.

ORGANIZATIONS_AT_ONCE: Final = 1_000
COLUMNS: Final = (
    "organization_id",
    "organization_name",
    "start",
    "end",
    "time_zone",
    "currency",
    "events",
    "overage_micro",
    "overage_credits",
    "money",
)
"""Of the CSV, whoever writes it."""


@dataclass(frozen=True, slots=True)
class OverageRow:
    """Of one organization, period and currency. `events` had overage (in revision 0)."""

    organization_id: str
    period: Cycle
    currency: str
    events: int
    overage_micro: int
    money_pico: int

    @property
    def credits(self) -> str:
        """Exact, as a decimal text."""
        return micro_text(self.overage_micro)

    @property
    def money(self) -> str:
        """In the currency's unit, exact, as a decimal text."""
        return pico_text(self.money_pico)


def all_periods(query: Query, period: str) -> dict[str, Cycle]:
    """When this period is, by organization, in the order of the ids: each has its own calendar.

    An organization in whose calendar no cycle begins in that month is left out: the cycle that
    runs then belongs to another month. Raises PeriodError where the text is no period at all.
    """
    BillingCalendar().period(period)
    changes: dict[str, list[CalendarChange]] = defaultdict(list)
    for organization_id, *change in query(_SETTINGS, {}):
        changes[organization_id].append(calendar_change(*change))
    return periods_of(
        {
            organization_id: BillingCalendar(changes[organization_id])
            for organization_id in sorted(changes)
        },
        period,
    )


def periods_of(calendars: Mapping[str, BillingCalendar], period: str) -> dict[str, Cycle]:
    """As `all_periods`, by calendars that are known."""
    periods = {}
    for organization_id, calendar in calendars.items():
        try:
            periods[organization_id] = calendar.period(period)
        except PeriodError:
            continue
    return periods


def overage(query: Query, periods: Mapping[str, Cycle]) -> list[OverageRow]:
    """Those organizations that have overage, in the order of `periods`; one row a currency.

    Asks once for every distinct period of `ORGANIZATIONS_AT_ONCE` organizations.
    """
    names = list(periods)
    rows: list[OverageRow] = []
    for at in range(0, len(names), ORGANIZATIONS_AT_ONCE):
        rows += _overage(
            query, {name: periods[name] for name in names[at : at + ORGANIZATIONS_AT_ONCE]}
        )
    return rows


def _overage(query: Query, periods: Mapping[str, Cycle]) -> list[OverageRow]:
    same: dict[Cycle, list[str]] = defaultdict(list)
    for name, cycle in periods.items():
        same[cycle].append(name)
    found: dict[str, list[OverageRow]] = defaultdict(list)
    for cycle, names in same.items():
        asked = frozenset(names)
        for row in _rows_of(query, names, cycle):
            if row.organization_id in asked:
                found[row.organization_id].append(row)
    return [row for name in periods for row in sorted(found[name], key=lambda row: row.currency)]


def _rows_of(query: Query, names: Sequence[str], cycle: Cycle) -> list[OverageRow]:
    parameters: dict[str, Any] = {
        "first": min(names),
        "last": max(names),
        "start": stamp(cycle.start),
        "end": stamp(cycle.end),
    }
    return [
        OverageRow(organization_id, cycle, *amounts)
        for organization_id, *amounts in query(_OVERAGE, parameters)
    ]
