"""`metering groups`: billing groups by hand and by file, under the same rules as by HTTP."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.command_line import Commands, OrganizationOption
from cli.configuration import load_settings
from cli.errors import Failure

app = Commands("Billing groups.")

GroupName = Annotated[str, typer.Argument(help="The group's name or id.")]
Members = Annotated[list[str], typer.Argument(help="Members: ids or e-mail addresses.")]
SHOWN_REFUSALS = 20


@app.command("list")
def list_groups(organization: OrganizationOption) -> None:
    """Every group: how it is configured, its members, its spend in this billing cycle."""
    from api import reading
    from api.errors import Refused
    from api.reading.billing_calendar import cycle_for
    from api.reading.spend import Spend
    from cli.control import opened
    from schemas.records import UNASSIGNED

    settings = load_settings()
    with opened(settings) as control, control.store.read() as session:
        reading.organization(session, organization)
        cycle = cycle_for(session, organization, None, datetime.now(UTC))
        rows = reading.groups(session, organization)
        counts = reading.member_counts(session, organization)
    spend = Spend(settings)
    try:
        spent = spend.by_group(organization, cycle, {row.id for row in rows})
        shown, otherwise = {group: f"{amount.cents:.6f}" for group, amount in spent.items()}, "0"
    except Refused as refused:
        typer.echo(refused.message, err=True)
        shown, otherwise = {}, "?"
    finally:
        spend.close()
    line = "{:<34} {:<28} {:<10} {:>7} {:>18}"
    typer.echo(line.format("ID", "NAME", "CONFIGURED", "MEMBERS", "SPEND (CENTS)"))
    for row in rows:
        typer.echo(
            line.format(
                row.id,
                row.name[:28],
                row.configured_by,
                counts.get(row.id, 0),
                shown.get(row.id, otherwise),
            )
        )
    rest = (counts[UNASSIGNED], shown.get(UNASSIGNED, otherwise))
    typer.echo(line.format(UNASSIGNED, "Unassigned", "", *rest))


@app.command()
def create(organization: OrganizationOption, name: Annotated[str, typer.Argument()]) -> None:
    """Create a group."""
    from api.rules.groups import create_group

    group = _change(organization, lambda change: create_group(change, name))
    typer.echo(group.id)


@app.command()
def rename(
    organization: OrganizationOption, group: GroupName, name: Annotated[str, typer.Argument()]
) -> None:
    """Rename a group, everywhere and at once."""
    from api.rules.groups import rename_group

    _change(organization, lambda change: rename_group(change, _group(change, group), name))


@app.command()
def delete(
    organization: OrganizationOption,
    group: GroupName,
    confirm_name: Annotated[
        str, typer.Option(prompt="Its usage becomes Unassigned for ever. Type the name")
    ],
) -> None:
    """Delete a group for ever: all of its usage, past too, becomes Unassigned."""
    from api.rules.groups import delete_group

    _change(organization, lambda change: delete_group(change, _group(change, group), confirm_name))


@app.command()
def add(organization: OrganizationOption, group: GroupName, members: Members) -> None:
    """Add Unassigned members to a group."""
    from api.rules.memberships import add_members

    _change(
        organization,
        lambda change: add_members(
            change, _group(change, group), _members(change, members), "members"
        ),
    )


@app.command()
def remove(organization: OrganizationOption, group: GroupName, members: Members) -> None:
    """Make members of a group Unassigned."""
    from api.rules.memberships import remove_members

    _change(
        organization,
        lambda change: remove_members(
            change, _group(change, group), _members(change, members), "members"
        ),
    )


@app.command()
def move(organization: OrganizationOption, group: GroupName, members: Members) -> None:
    """Move members into a group (or `group_unassigned`), all in one step."""
    from api.rules.memberships import move_members

    _change(
        organization,
        lambda change: move_members(
            change, dict.fromkeys(_members(change, members), _group(change, group))
        ),
    )


@app.command("import")
def import_(
    organization: OrganizationOption,
    file: Annotated[
        Path, typer.Argument(help="CSV with the columns group and email, and perhaps member_id.")
    ],
    create_members: Annotated[
        bool, typer.Option("--create-members", help="Unknown addresses become members.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Apply without asking.")] = False,
) -> None:
    """Show what a file would do, row by row where it is refused; then apply it whole."""
    from api.rules import csv_files, csv_plans
    from cli.control import opened, operator

    try:
        raw = file.read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}.") from error
    with opened(load_settings()) as control:
        rows = csv_files.read_rows(raw)
        with control.store.read() as session:
            plan = csv_plans.plan(
                session, organization, rows, create_members=create_members, progress=_progress
            )
        _show(plan)
        if plan.refused:
            raise Failure(f"{len(plan.refused)} rows are refused, so nothing was applied.")
        if not yes and not typer.confirm("Apply?"):
            return
        with control.change(organization, operator("csv")) as change:
            csv_plans.apply(change, plan, plan.digest, progress=_progress)
    typer.echo("Applied.")


def _show(plan: Any) -> None:
    for one in plan.refused[:SHOWN_REFUSALS]:
        typer.echo(f"line {one.row.line}: {one.row.email} → {one.row.group}: {one.why}", err=True)
    for name in plan.new_groups:
        typer.echo(f"new group: {name}")
    for action, count in sorted(plan.counts.items()):
        typer.echo(f"{action}: {count}")


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{what} {done} of {total} rows", err=True, nl=done == total)


@app.command()
def export(organization: OrganizationOption) -> None:
    """Every active member and its group, as a file that `import` reads back."""
    from api import reading
    from api.rules import csv_people
    from cli.control import opened

    with opened(load_settings()) as control, control.store.read() as session:
        reading.organization(session, organization)
        sys.stdout.write(csv_people.export(session, organization))


def _change(organization: str, do: Any) -> Any:
    from cli.control import opened, operator

    with opened(load_settings()) as control, control.change(organization, operator()) as change:
        return do(change)


def _group(change: Any, named: str) -> str:
    """The id of a group that was named by id or name."""
    from api import reading
    from api.rules.names import fold

    for row in reading.groups(change.session, change.organization_id):
        if named == row.id or fold(named) == row.name_folded:
            return str(row.id)
    return named


def _members(change: Any, named: list[str]) -> list[str]:
    """The ids of members who were named by id or address."""
    from api.rules.members import find_by_address

    found = []
    for one in named:
        member = find_by_address(change, one) if "@" in one else None
        found.append(one if member is None else str(member.id))
    return found
