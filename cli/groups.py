"""`metering groups`: billing groups by hand and by file, under the same rules as by HTTP."""

import sys
from datetime import date
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
WAYS = ("scim", "api", "csv", "manual")


@app.command("list")
def list_groups(
    organization: OrganizationOption,
    search: Annotated[str, typer.Option(help="A part of the name, or the whole id.")] = "",
    configured_by: Annotated[
        str | None, typer.Option(metavar="|".join(WAYS), help="Only groups configured this way.")
    ] = None,
    cycle: Annotated[
        str, typer.Option(metavar="DAY", help="A day of the billing cycle, as 2026-10-15.")
    ] = "",
) -> None:
    """Every group: how it is configured, its members now, its spend in a billing cycle."""
    from cli.group_tables import print_groups

    if configured_by not in (None, *WAYS):
        raise typer.BadParameter(f"{configured_by!r} is none of {', '.join(WAYS)}.")
    print_groups(load_settings(), organization, search, configured_by, _day(cycle))


@app.command()
def show(organization: OrganizationOption, group: GroupName) -> None:
    """One group, `group_unassigned` too: its members, names and conflicts."""
    from cli.group_tables import print_group

    print_group(load_settings(), organization, group)


@app.command()
def directories(organization: OrganizationOption) -> None:
    """The identity provider's groups, and the billing groups that follow them."""
    from cli.group_tables import print_directories

    print_directories(load_settings(), organization)


@app.command()
def attach(
    organization: OrganizationOption,
    group: GroupName,
    directory_group: Annotated[str, typer.Argument(help="The directory group's name or id.")],
) -> None:
    """Sync a group with a directory group, whose members replace its own."""
    from api.rules.groups import attach_directory

    _change(
        organization,
        lambda change: attach_directory(
            change, _group(change, group), _directory(change, directory_group)
        ),
    )


@app.command()
def detach(organization: OrganizationOption, group: GroupName) -> None:
    """End the sync of a group; its members stay."""
    from api.rules.groups import detach_directory

    _change(organization, lambda change: detach_directory(change, _group(change, group)))


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
    from cli.api import load_options
    from cli.control import opened, operator

    raw = _read(file, load_options().csv_limit_bytes)
    with opened(load_settings()) as control:
        rows = csv_files.read_rows(raw)
        with control.store.read() as session:
            plan = csv_plans.plan(
                session, organization, rows, create_members=create_members, progress=_progress
            )
        _show(plan)
        if plan.refused:
            raise Failure(f"{len(plan.refused)} rows are refused, so nothing was applied.")
        if set(plan.counts) <= {"unchanged"}:
            typer.echo("Nothing to change.")
            return
        if not yes and not typer.confirm("Apply?"):
            return
        with control.change(organization, operator("csv")) as change:
            csv_plans.apply(change, plan, plan.digest, progress=_progress)
    typer.echo("Applied.")


def _read(file: Path, limit_bytes: int) -> bytes:
    """No more than the API takes, so that what never ends fills no memory."""
    try:
        with file.open("rb") as opened_file:
            raw = opened_file.read(limit_bytes + 1)
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}.") from error
    if len(raw) > limit_bytes:
        raise Failure(
            f"{file} is longer than {limit_bytes} bytes (METERING_API_CSV_LIMIT_BYTES); split it."
        )
    return raw


def _show(plan: Any) -> None:
    for one in plan.refused[:SHOWN_REFUSALS]:
        typer.echo(f"line {one.row.line}: {one.row.email} → {one.row.group}: {one.why}", err=True)
    for name in plan.new_groups:
        typer.echo(f"new group: {name}")
    for action, count in sorted(plan.counts.items()):
        typer.echo(f"{action}: {count}")


def _progress(what: str, count: int, total: int) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{what} {count} of {total} rows", err=True, nl=count == total)


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


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no day; write it as 2026-10-15.") from error


def _group(change: Any, name_or_id: str) -> str:
    """The id of a group that was named by id or name; an id is never taken for another's name."""
    from cli.group_tables import group_id_of

    return group_id_of(change.session, change.organization_id, name_or_id)


def _directory(change: Any, name_or_id: str) -> str:
    """The id of a directory group that was named by id or name."""
    from api.reading import directory_names
    from api.rules.names import fold

    names = directory_names(change.session, change.organization_id)
    by_name = {fold(name): directory_id for directory_id, name in names.items()}
    return name_or_id if name_or_id in names else by_name.get(fold(name_or_id.strip()), name_or_id)


def _members(change: Any, names_or_ids: list[str]) -> list[str]:
    """The ids of members who were named by id, or else by an address."""
    from api.rules.members import find_by_address
    from api.storage.models import Member

    ids = []
    for one in names_or_ids:
        is_id = change.session.get(Member, (change.organization_id, one)) is not None
        holder = None if is_id else find_by_address(change, one)
        ids.append(str(holder.id) if holder else one)
    return ids
