"""`metering report credits`: what is left of an organization's credits, by pool and by grant."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from cli.command_line import OrganizationOption
from cli.configuration import load_settings
from cli.errors import WRONG_SETTINGS, Failure
from cli.report_formats import Format, FormatOption, json_text
from cli.tables import number, table, text
from schemas.records import PoolKind
from schemas.spreadsheets import csv_lines, guarded
from warehouse.amounts import micro_text
from warehouse.balances import GrantBalance, KindFigures
from warehouse.connection import connect
from warehouse.credits_report import CreditsReport, NamedPool, credits_report

MINUTE: Final = "%Y-%m-%d %H:%M"
SECOND: Final = "%Y-%m-%d %H:%M:%S"
GRANT_AMOUNTS: Final = (
    "issued",
    "repaid",
    "revoked",
    "owed",
    "forfeited",
    "adjusted",
    "used",
    "remaining",
)


def report_credits(
    organization: OrganizationOption,
    group: Annotated[
        str | None, typer.Option(metavar="ID", help="Only the pool of this group.")
    ] = None,
    website: Annotated[
        str | None, typer.Option(metavar="ID", help="Only the pool of this website.")
    ] = None,
    with_grants: Annotated[
        bool, typer.Option("--grants", help="By grant; as CSV, grants instead of pools.")
    ] = False,
    format_: FormatOption = Format.TABLE,
) -> None:
    """What is left of credits, monthly and one-time, and what is owed."""
    kind, pool_id = _named(group, website)
    client = connect(load_settings())
    try:
        report = credits_report(
            client,
            organization,
            datetime.now(UTC),
            pool_kind=kind,
            pool_id=pool_id,
            with_grants=with_grants,
        )
    finally:
        client.close()
    if not report.organization.is_known and not report.is_known:
        raise Failure(f"organization {organization!r} is unknown: no fact or name of it")
    if kind is not None and not report.is_known:
        raise Failure(f"{kind} {pool_id!r} is unknown: no fact, name or credits of it")
    typer.echo(render(report, format_.value, with_grants=with_grants), nl=False)


def _named(group: str | None, website: str | None) -> tuple[PoolKind | None, str | None]:
    """The pool that is asked for, if it is one."""
    if group is not None and website is not None:
        raise Failure("give --group or --website, not both", WRONG_SETTINGS)
    if group is not None:
        return "group", group
    return (None, None) if website is None else ("website", website)


def render(report: CreditsReport, format_: str, *, with_grants: bool) -> str:
    """The report as text that ends with a newline."""
    match format_:
        case "json":
            return json_text(_as_json(report, with_grants=with_grants))
        case "csv":
            return _grants_csv(report) if with_grants else _pools_csv(report)
        case _:
            return _as_table(report, with_grants=with_grants)


def _as_json(report: CreditsReport, *, with_grants: bool) -> dict[str, Any]:
    return {
        "organization_id": report.organization.organization_id,
        "organization_name": report.organization.name,
        "at": report.at.isoformat(timespec="milliseconds"),
        "pools": [
            _pool_fields(pool)
            | (
                {"grants": [_grant_fields(grant, report.at) for grant in pool.grants]}
                if with_grants
                else {}
            )
            for pool in report.pools
        ],
    }


def _pool_fields(pool: NamedPool) -> dict[str, Any]:
    figures = pool.figures
    reset_at = figures.monthly.next_reset_at
    return {
        "pool_kind": figures.pool_kind,
        "pool_id": figures.pool_id,
        "name": pool.name,
        "is_deleted": pool.is_deleted,
        **_kind_fields("monthly", figures.monthly),
        "monthly_resets_at": reset_at.isoformat() if reset_at else None,
        **_kind_fields("one_time", figures.one_time),
        "debt_credits": micro_text(figures.debt_micro),
        "balance_credits": micro_text(figures.balance_micro),
        "upcoming_credits": micro_text(figures.upcoming_micro),
        "expired_credits": micro_text(figures.expired_micro),
    }


def _kind_fields(name: str, figures: KindFigures) -> dict[str, str]:
    return {
        f"{name}_total_credits": micro_text(figures.total_micro),
        f"{name}_used_credits": micro_text(figures.used_micro),
        f"{name}_remaining_credits": micro_text(figures.remaining_micro),
    }


def _grant_fields(grant: GrantBalance, at: datetime) -> dict[str, Any]:
    return {
        "grant_id": grant.grant_id,
        "kind": grant.kind,
        "source": grant.source,
        "state": grant.state(at),
        "effective_at": grant.effective_at.isoformat(),
        "expires_at": grant.expires_at.isoformat() if grant.expires_at else None,
        **{
            f"{name}_credits": micro_text(getattr(grant, f"{name}_micro")) for name in GRANT_AMOUNTS
        },
    }


def _pools_csv(report: CreditsReport) -> str:
    rows = [_pool_fields(pool) for pool in report.pools]
    header = list(_pool_fields(report.pools[0])) if report.pools else ["pool_kind", "pool_id"]
    return csv_lines([header, *(_cells(row) for row in rows)])


def _grants_csv(report: CreditsReport) -> str:
    rows = [
        {"pool_kind": grant.pool_kind, "pool_id": grant.pool_id, **_grant_fields(grant, report.at)}
        for pool in report.pools
        for grant in pool.grants
    ]
    header = list(rows[0]) if rows else ["pool_kind", "pool_id", "grant_id"]
    return csv_lines([header, *(_cells(row) for row in rows)])


def _cells(row: dict[str, Any]) -> list[str]:
    """Amounts may begin with a minus; what people chose may not be taken for a formula."""
    return [
        str(value) if name.endswith("_credits") else guarded("" if value is None else str(value))
        for name, value in row.items()
    ]


def _as_table(report: CreditsReport, *, with_grants: bool) -> str:
    organization = report.organization
    lines = [
        f"Credits of {organization.name or organization.organization_id}, {report.at:{SECOND}} UTC",
        "Debt is what was spent of credits that were taken back; the next credits repay it.",
        "The balance is what can be spent now, minus the debt; upcoming credits begin later.",
        "",
    ]
    if not report.pools:
        return "\n".join([*lines, "No credits were ever given.", ""])
    lines += table(_POOL_COLUMNS, [_pool_row(pool) for pool in report.pools])
    if with_grants:
        for pool in report.pools:
            lines += ["", _label(pool), *_grants_table(pool, report.at)]
    return "\n".join([*lines, ""])


_POOL_COLUMNS: Final = (
    text("Pool"),
    number("Monthly left"),
    number("Monthly total"),
    text("Resets (UTC)"),
    number("One-time left"),
    number("One-time total"),
    number("Debt"),
    number("Balance"),
    number("Upcoming"),
)


def _pool_row(pool: NamedPool) -> list[str]:
    figures = pool.figures
    reset_at = figures.monthly.next_reset_at
    return [
        _label(pool),
        micro_text(figures.monthly.remaining_micro),
        micro_text(figures.monthly.total_micro),
        f"{reset_at:{MINUTE}}" if reset_at else "",
        micro_text(figures.one_time.remaining_micro),
        micro_text(figures.one_time.total_micro),
        micro_text(figures.debt_micro),
        micro_text(figures.balance_micro),
        micro_text(figures.upcoming_micro),
    ]


def _label(pool: NamedPool) -> str:
    kind, pool_id = pool.figures.pool_kind, pool.figures.pool_id
    named = f"{pool.name} ({pool_id})" if pool.name and pool.name != pool_id else pool_id
    return f"{kind} {named}{', deleted' if pool.is_deleted else ''}"


def _grants_table(pool: NamedPool, at: datetime) -> list[str]:
    if not pool.grants:
        return ["No credits were ever given."]
    columns = [
        text("Grant"),
        text("Kind"),
        text("State"),
        text("From (UTC)"),
        text("Until"),
        *(number(name.capitalize()) for name in GRANT_AMOUNTS),
        text("Source"),
    ]
    return table(columns, [_grant_row(grant, at) for grant in pool.grants])


def _grant_row(grant: GrantBalance, at: datetime) -> Sequence[str]:
    return [
        grant.grant_id,
        grant.kind,
        grant.state(at),
        f"{grant.effective_at:{MINUTE}}",
        f"{grant.expires_at:{MINUTE}}" if grant.expires_at else "",
        *(micro_text(getattr(grant, f"{name}_micro")) for name in GRANT_AMOUNTS),
        grant.source,
    ]
