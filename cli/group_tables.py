"""What `metering groups` shows: the table of groups, one group, and the directory's groups."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import typer

from cli.errors import Failure
from cli.tables import number, table, text
from schemas.records import UNASSIGNED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from api.storage.models import BillingGroup
    from schemas.cycles import Cycle
    from schemas.settings import Settings


def print_groups(
    settings: "Settings",
    organization_id: str,
    search: str,
    configured_by: str | None,
    day: date | None,
) -> None:
    """The groups that are searched for, and Unassigned; with what is in conflict below them."""
    from api import reading
    from api.reading.billing_calendar import cycle_for
    from cli.control import opened

    with opened(settings) as control, control.store.read() as session:
        row_of = reading.organization(session, organization_id)
        currency = row_of.currency
        cycle = cycle_for(session, organization_id, day, datetime.now(UTC))
        live = reading.groups(session, organization_id)
        counts = reading.member_counts(session, organization_id)
        conflicts = reading.sync_conflicts(session, organization_id)
    rows = reading.matching(live, search, configured_by)
    spent, unspent = _spend(settings, organization_id, cycle, live)
    cells = [(row.id, row.name, row.configured_by) for row in rows]
    lines = table(
        [
            text("ID"),
            text("Name"),
            text("Configured by"),
            number("Members"),
            number("Spend"),
            number(f"Money ({currency})"),
        ],
        [
            (*cell, str(counts.get(cell[0], 0)), *spent.get(cell[0], unspent))
            for cell in (*cells, (UNASSIGNED, "Unassigned", ""))
        ],
    )
    for line in [_cycle_line(cycle), "", *lines]:
        typer.echo(line)
    _print_conflicts(live, rows, conflicts)


def _cycle_line(cycle: "Cycle") -> str:
    start, end = f"{cycle.start:%Y-%m-%d %H:%M}", f"{cycle.end:%Y-%m-%d %H:%M}"
    return f"Billing cycle {start} up to {end} UTC; amounts in credits"


def _spend(
    settings: "Settings", organization_id: str, cycle: "Cycle", live: "Sequence[BillingGroup]"
) -> tuple[dict[str, tuple[str, str]], tuple[str, str]]:
    """The spend of each group in credits and in money, as `report spend` shows them, and what is
    shown for a group without any: that is no 0 while nobody can tell."""
    from api.errors import Refused
    from api.reading.spend import Amount, Spend
    from warehouse.amounts import micro_text, pico_text

    def shown(amount: Amount) -> tuple[str, str]:
        return micro_text(amount.micro), pico_text(amount.pico)

    spend = Spend(settings)
    try:
        amounts = spend.by_group(organization_id, cycle, {row.id for row in live})
        return {group: shown(amount) for group, amount in amounts.items()}, shown(Amount())
    except Refused as refused:
        typer.echo(refused.message, err=True)
        return {}, ("?", "?")
    finally:
        spend.close()


def _print_conflicts(
    live: "Sequence[BillingGroup]", rows: "Sequence[BillingGroup]", conflicts: dict[str, list[str]]
) -> None:
    names = {row.id: row.name for row in live}
    listed = {row.id for row in rows}
    lines = [
        f"{row.name} cannot take the name {row.name_conflict!r} of its directory group: taken."
        for row in rows
        if row.name_conflict
    ]
    lines += [
        f"{member_id} is wanted by {', '.join(map(names.__getitem__, group_ids))}; "
        "it is in the first."
        for member_id, group_ids in conflicts.items()
        if listed.intersection(group_ids)
    ]
    for line in ["", "Conflicts", *lines] if lines else []:
        typer.echo(line)


def print_group(settings: "Settings", organization_id: str, name_or_id: str) -> None:
    """One group by its id or name. Raises Failure where there is none."""
    from api import reading
    from cli.control import opened

    with opened(settings) as control, control.store.read() as session:
        reading.organization(session, organization_id)
        group_id = group_id_of(session, organization_id, name_or_id)
        live = reading.groups(session, organization_id)
        people = reading.current_people(session, organization_id, group_id)[group_id]
        conflicts = reading.sync_conflicts(session, organization_id, group_id)
        directories = reading.directory_names(session, organization_id)
    row = next((row for row in live if row.id == group_id), None)
    if row is None and group_id != UNASSIGNED:
        raise Failure(f"There is no group {name_or_id!r}. `metering groups list` names all.")
    typer.echo(f"{row.name if row else 'Unassigned'} ({group_id})")
    if row is not None:
        follows = directories.get(row.directory_group_id or "")
        typer.echo(
            f"Configured by {row.configured_by}" + (f", follows {follows!r}" if follows else "")
        )
    typer.echo("")
    members = [(one.member_id, one.name, one.email, one.joined_at) for one in people]
    columns = [text("Member"), text("Name"), text("E-mail"), text("Since")]
    for line in table(columns, members) if members else ["No members"]:
        typer.echo(line)
    _print_conflicts(live, [row] if row else [], conflicts)


def print_directories(settings: "Settings", organization_id: str) -> None:
    """The directory groups, and which billing group follows each."""
    from api import reading
    from cli.control import opened

    with opened(settings) as control, control.store.read() as session:
        reading.organization(session, organization_id)
        names = reading.directory_names(session, organization_id)
        live = reading.groups(session, organization_id)
    followers = {row.directory_group_id: row.name for row in live}
    rows = sorted((name, one, followers.get(one, "")) for one, name in names.items())
    columns = [text("ID"), text("Name"), text("Billing group")]
    for line in table(columns, [(one, name, follower) for name, one, follower in rows]):
        typer.echo(line)


def group_id_of(session: "Session", organization_id: str, name_or_id: str) -> str:
    """The id of a group that was named by id or name; an id is never taken for another's name.
    What is neither comes back, to be refused by the rules."""
    from api import reading
    from api.rules.names import UNASSIGNED_NAME, fold

    rows = reading.groups(session, organization_id)
    by_name = {row.name_folded: str(row.id) for row in rows} | {fold(UNASSIGNED_NAME): UNASSIGNED}
    is_id = name_or_id == UNASSIGNED or any(row.id == name_or_id for row in rows)
    return name_or_id if is_id else by_name.get(fold(name_or_id.strip()), name_or_id)
