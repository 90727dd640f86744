"""`metering report overage`: what no credits were left for, by organization, to be invoiced."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from cli.command_line import OnlyOrganizationOption
from cli.configuration import load_settings
from cli.errors import WRONG_SETTINGS, Failure
from cli.report_formats import Format, FormatOption, json_text
from cli.tables import number, table, text
from schemas.cycles import BillingCalendar, Cycle, PeriodError
from schemas.spreadsheets import csv_lines, guarded
from warehouse.amounts import micro_text, pico_text
from warehouse.connection import connect
from warehouse.organizations import billing_calendar, find_organization, organization_names
from warehouse.overage import COLUMNS, OverageRow, all_periods, overage

MINUTE: Final = "%Y-%m-%d %H:%M"


def report_overage(
    period: Annotated[
        str,
        typer.Option(
            help="A billing month (2026-11), the billing cycle of a day (2026-11-15), or days "
            "(2026-11-01..2026-11-15), in each organization's own calendar."
        ),
    ],
    organization: OnlyOrganizationOption = None,
    format_: FormatOption = Format.TABLE,
) -> None:
    """What no credits were left for, of every organization or one, with its money."""
    try:
        BillingCalendar().period(period)
    except PeriodError as error:
        raise Failure(str(error), WRONG_SETTINGS) from None
    client = connect(load_settings())
    try:
        periods, names = _asked(client, period, organization)
        rows = overage(lambda *asked: client.query(*asked).result_rows, periods)
    except PeriodError as error:
        raise Failure(str(error), WRONG_SETTINGS) from None
    finally:
        client.close()
    typer.echo(render(rows, names, period, format_.value), nl=False)


def _asked(
    client: Any, period: str, organization_id: str | None
) -> tuple[dict[str, Cycle], dict[str, str]]:
    """The period of each organization that is asked for, and the names that are known."""
    if organization_id is None:
        periods = all_periods(lambda *asked: client.query(*asked).result_rows, period)
        return periods, organization_names(client)
    known = find_organization(client, organization_id)
    if not known.is_known:
        raise Failure(f"organization {organization_id!r} is unknown: no fact or name of it")
    cycle = billing_calendar(client, organization_id).period(period)
    return {organization_id: cycle}, {organization_id: known.name}


def render(rows: Sequence[OverageRow], names: Mapping[str, str], period: str, format_: str) -> str:
    """The report as text that ends with a newline."""
    match format_:
        case "json":
            document = {"period": period, "rows": [_fields(row, names) for row in rows]}
            return json_text(document | {"total": _totals(rows)})
        case "csv":
            return csv_lines([COLUMNS, *(_cells(row, names) for row in rows)])
        case _:
            return _as_table(rows, names, period)


def _fields(row: OverageRow, names: Mapping[str, str]) -> dict[str, Any]:
    values = (
        row.organization_id,
        names.get(row.organization_id, ""),
        row.period.start.isoformat(),
        row.period.end.isoformat(),
        row.period.time_zone,
        row.currency,
        row.events,
        row.overage_micro,
        row.credits,
        row.money,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _cells(row: OverageRow, names: Mapping[str, str]) -> list[str]:
    """Only what people chose may be taken for a formula; an amount may begin with a minus."""
    first, second, *others = _fields(row, names).values()
    return [guarded(first), guarded(second), *map(str, others)]


def _totals(rows: Sequence[OverageRow]) -> dict[str, Any]:
    by_currency: dict[str, int] = defaultdict(int)
    for row in rows:
        by_currency[row.currency] += row.money_pico
    return {
        "overage_micro": sum(row.overage_micro for row in rows),
        "overage_credits": micro_text(sum(row.overage_micro for row in rows)),
        "money": {name: pico_text(pico) for name, pico in sorted(by_currency.items())},
    }


def _as_table(rows: Sequence[OverageRow], names: Mapping[str, str], period: str) -> str:
    head = [
        f"Overage of {period}",
        "What no credits were left for, in credits, and in money at the price on each event.",
        "",
    ]
    if not rows:
        return "\n".join([*head, "No overage in this period.", ""])
    columns = [
        text("Organization"),
        text("From"),
        text("Up to"),
        number("Events"),
        number("Overage"),
        number("Money"),
        text("Currency"),
    ]
    body = []
    for row in rows:
        zone = ZoneInfo(row.period.time_zone)
        name = names.get(row.organization_id, "")
        body.append(
            [
                f"{name} ({row.organization_id})" if name else row.organization_id,
                f"{row.period.start.astimezone(zone):{MINUTE}}",
                f"{row.period.end.astimezone(zone):{MINUTE}} {row.period.time_zone}",
                str(row.events),
                row.credits,
                row.money,
                row.currency,
            ]
        )
    return "\n".join([*head, *table(columns, body), ""])
