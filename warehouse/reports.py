"""Spend of an organization in a period, by group, member, website, meter or day.

The numbers come from the views that finance can query itself (`spend`, `spend_known_now`), summed
in 128 bits; totals are the sums of the rows shown, to the micro-credit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Self

from schemas.cycles import Cycle
from warehouse.organizations import Organization, billing_calendar, find_organization

By = Literal["group", "member", "website", "meter", "day"]
AsOf = Literal["stamped", "known-now"]

VIEWS: Final[dict[AsOf, str]] = {"stamped": "spend", "known-now": "spend_known_now"}

_QUERY: Final = """
SELECT
    toString(s.id) AS id,
    s.group_name AS group_name,
    {name} AS name,
    s.currency AS currency,
    s.events, s.quantity_micro, s.cost_micro, s.website_debit_micro, s.group_debit_micro,
    s.overage_micro, s.money_pico
FROM
(
    SELECT
        {key} AS id,
        {group_name} AS group_name,
        currency,
        countIf(revision = 0) AS events,
        sum(toInt128(u.quantity_micro)) AS quantity_micro,
        sum(toInt128(u.cost_micro)) AS cost_micro,
        sum(toInt128(u.website_debit_micro)) AS website_debit_micro,
        sum(toInt128(u.group_debit_micro)) AS group_debit_micro,
        sum(toInt128(u.overage_micro)) AS overage_micro,
        sum(u.money_pico) AS money_pico
    FROM {view} AS u
    WHERE organization_id = {{organization:String}}
        AND event_time >= toDateTime64({{start:String}}, 6, 'UTC')
        AND event_time < toDateTime64({{end:String}}, 6, 'UTC')
    GROUP BY id, group_name, currency
) AS s
{names}
ORDER BY {order}
"""

_NAMES_JOIN: Final = """
LEFT JOIN
(
    SELECT {column} AS named_id, name FROM {view} WHERE organization_id = {{organization:String}}
) AS n ON s.id = n.named_id
"""

_KEYS: Final[dict[By, str]] = {
    "group": "u.group_id",
    "member": "u.member_id",
    "website": "u.website_id",
    "meter": "u.meter",
    "day": "toDate(u.event_time, {time_zone:String})",
}
_NAMES: Final[dict[By, tuple[str, str]]] = {
    "member": ("member_id", "members"),
    "website": ("website_id", "websites"),
}


@dataclass(slots=True)
class Amounts:
    """Sums over some rated rows. `*_micro` are micro-credits, except `quantity_micro` (millionths
    of the meter's unit); `money_pico` is 10^-12 of each currency's unit."""

    events: int = 0
    quantity_micro: int = 0
    cost_micro: int = 0
    website_debit_micro: int = 0
    group_debit_micro: int = 0
    overage_micro: int = 0
    money_pico: dict[str, int] = field(default_factory=dict)

    def add(self, other: Self) -> None:
        self.events += other.events
        self.quantity_micro += other.quantity_micro
        self.cost_micro += other.cost_micro
        self.website_debit_micro += other.website_debit_micro
        self.group_debit_micro += other.group_debit_micro
        self.overage_micro += other.overage_micro
        for currency, pico in other.money_pico.items():
            self.money_pico[currency] = self.money_pico.get(currency, 0) + pico


@dataclass(frozen=True, slots=True)
class SpendRow:
    """One group, member, website, meter or day; `name` is empty where none is known."""

    id: str
    name: str
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class SpendReport:
    organization: Organization
    period: Cycle
    by: By
    as_of: AsOf
    rows: tuple[SpendRow, ...]
    total: Amounts


def spend_report(
    client: Any, organization_id: str, period: str, by: By, as_of: AsOf = "stamped"
) -> SpendReport:
    """The report; without rows when nothing was used. Raises `PeriodError`."""
    when = billing_calendar(client, organization_id).period(period)
    rows: dict[str, SpendRow] = {}
    total = Amounts()
    for row in _query_rows(client, organization_id, when, by, as_of):
        total.add(row.amounts)
        if row.id in rows:  # the same in another currency
            rows[row.id].amounts.add(row.amounts)
        else:
            rows[row.id] = row
    return SpendReport(
        find_organization(client, organization_id), when, by, as_of, tuple(rows.values()), total
    )


def _query_rows(
    client: Any, organization_id: str, period: Cycle, by: By, as_of: AsOf
) -> list[SpendRow]:
    name_columns = _NAMES.get(by)
    sql = _QUERY.format(
        key=_KEYS[by],
        group_name="u.group_name" if by == "group" else "''",
        view=VIEWS[as_of],
        name="n.name" if name_columns else "''",
        names=_NAMES_JOIN.format(column=name_columns[0], view=name_columns[1])
        if name_columns
        else "",
        order="s.id" if by == "day" else "s.cost_micro DESC, s.id",
    )
    answer = client.query(
        sql,
        parameters={
            "organization": organization_id,
            "start": _timestamp(period.start),
            "end": _timestamp(period.end),
            "time_zone": period.time_zone,
        },
    )
    return [_row(columns) for columns in answer.result_rows]


def _row(columns: Sequence[Any]) -> SpendRow:
    row_id, group_name, name, currency, events, quantity, cost, website, group, overage, money = (
        columns
    )
    amounts = Amounts(events, quantity, cost, website, group, overage, {currency: money})
    return SpendRow(row_id, group_name or name, amounts)


def _timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")
