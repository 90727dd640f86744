"""`metering report spend`: what an organization's usage cost in a period, exactly.

Amounts are printed as exact decimals; the totals are the sums of the rows above them.
"""

from enum import StrEnum
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from cli.command_line import Commands, OrganizationOption
from cli.configuration import load_settings
from cli.errors import WRONG_SETTINGS, Failure
from cli.report_credits import report_credits
from cli.report_formats import Format, FormatOption, json_text
from cli.report_overage import report_overage
from cli.tables import number, table, text
from schemas.cycles import BillingCalendar, PeriodError
from schemas.spreadsheets import csv_lines, guarded
from warehouse.amounts import micro_text, pico_text
from warehouse.connection import connect
from warehouse.reports import Amounts, SpendReport, spend_report

app = Commands("Reports from ClickHouse.")

AS_OF_WORDS: Final = {
    "stamped": "groups as stamped on each event when it was rated",
    "known-now": "groups by all membership facts known now",
}
MINUTE: Final = "%Y-%m-%d %H:%M"
NOBODY: Final = {"member": "(no member)", "website": "(no website)"}


class By(StrEnum):
    GROUP = "group"
    MEMBER = "member"
    WEBSITE = "website"
    METER = "meter"
    DAY = "day"


class AsOf(StrEnum):
    STAMPED = "stamped"
    KNOWN_NOW = "known-now"


app.command("credits")(report_credits)
app.command("overage")(report_overage)


@app.callback()
def _reports() -> None:
    """Reports from ClickHouse."""


@app.command()
def spend(
    organization: OrganizationOption,
    period: Annotated[
        str,
        typer.Option(
            help="A billing month (2026-11), the billing cycle of a day (2026-11-15), or days "
            "(2026-11-01..2026-11-15)."
        ),
    ],
    by: Annotated[By, typer.Option()] = By.GROUP,
    as_: Annotated[
        AsOf,
        typer.Option("--as", help="Groups as stamped, or by all membership facts known now."),
    ] = AsOf.STAMPED,
    format_: FormatOption = Format.TABLE,
) -> None:
    """Spend of an organization in a period, funded or not."""
    try:
        # What is no period anywhere is refused before a server is asked; which instants it is
        # depends on the organization.
        BillingCalendar().period(period)
    except PeriodError as error:
        raise Failure(str(error), WRONG_SETTINGS) from None
    client = connect(load_settings())
    try:
        report = spend_report(client, organization, period, by.value, as_.value)
    except PeriodError as error:
        raise Failure(str(error), WRONG_SETTINGS) from None
    finally:
        client.close()
    if not report.rows and not report.organization.is_known:
        raise Failure(f"organization {organization!r} is unknown: no fact, name or usage of it")
    typer.echo(render(report, format_.value), nl=False)


def render(report: SpendReport, format_: str) -> str:
    """The report as text that ends with a newline."""
    match format_:
        case "json":
            return json_text(_as_json(report))
        case "csv":
            return _as_csv(report)
        case _:
            return _as_table(report)


def _as_json(report: SpendReport) -> dict[str, Any]:
    return {
        "organization_id": report.organization.organization_id,
        "organization_name": report.organization.name,
        "start": report.period.start.isoformat(),
        "end": report.period.end.isoformat(),
        "time_zone": report.period.time_zone,
        "by": report.by,
        "as": report.as_of,
        "rows": [
            {"id": row.id, "name": row.name, **_fields(report, row.amounts)} for row in report.rows
        ],
        "total": _fields(report, report.total),
    }


def _fields(report: SpendReport, amounts: Amounts) -> dict[str, Any]:
    quantity = {"quantity": micro_text(amounts.quantity_micro)} if report.by == "meter" else {}
    return {
        "events": amounts.events,
        **quantity,
        "spend_credits": micro_text(amounts.cost_micro),
        "website_credits": micro_text(amounts.website_debit_micro),
        "group_credits": micro_text(amounts.group_debit_micro),
        "overage_credits": micro_text(amounts.overage_micro),
        "money": {name: pico_text(pico) for name, pico in sorted(amounts.money_pico.items())},
    }


def _as_csv(report: SpendReport) -> str:
    """Rows only: a total among them would be added up with them. One money column a currency."""
    currencies = sorted(report.total.money_pico)
    header = ["id", "name", *_fields(report, report.total)][:-1]
    rows = [
        [guarded(row.id), guarded(row.name), *_cells(report, row.amounts, currencies)]
        for row in report.rows
    ]
    return csv_lines([[*header, *(f"money_{currency}" for currency in currencies)], *rows])


def _as_table(report: SpendReport) -> str:
    organization = report.organization
    title = organization.name or organization.organization_id
    zone = ZoneInfo(report.period.time_zone)
    start, end = (each.astimezone(zone) for each in (report.period.start, report.period.end))
    lines = [
        f"Spend of {title} by {report.by}, {AS_OF_WORDS[report.as_of]}",
        f"{start:{MINUTE}} up to {end:{MINUTE}} {report.period.time_zone}",
        "Amounts in credits; overage is what no credits were left for.",
        "",
    ]
    if not report.rows:
        return "\n".join([*lines, "No usage in this period.", ""])
    currencies = sorted(report.total.money_pico)
    columns = [
        text(report.by.capitalize()),
        number("Events"),
        *([number("Quantity")] if report.by == "meter" else []),
        number("Spend"),
        number("Website credits"),
        number("Group credits"),
        number("Overage"),
        *(number(f"Money ({currency})") for currency in currencies),
    ]
    body = [
        [_label(report, row.id, row.name), *_cells(report, row.amounts, currencies)]
        for row in report.rows
    ]
    total = ["Total", *_cells(report, report.total, currencies)]
    return "\n".join([*lines, *table(columns, body, total=total), ""])


def _label(report: SpendReport, row_id: str, name: str) -> str:
    if not row_id:
        return NOBODY.get(report.by, "(none)")
    return f"{name} ({row_id})" if name and name != row_id else row_id


def _cells(report: SpendReport, amounts: Amounts, currencies: list[str]) -> list[str]:
    """What stands in a row behind its label; an amount of money a currency."""
    fields = _fields(report, amounts)
    money = fields.pop("money")
    in_currencies = (money.get(currency, "0.00") for currency in currencies)
    return [*(str(value) for value in fields.values()), *in_currencies]
