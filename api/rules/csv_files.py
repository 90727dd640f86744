"""CSV of groups and members: reading a file, planning what it would do, doing it, writing one.

A plan is a function of the file and of the organization as it is; it is shown first, and applied
only while it is still the same plan. If one row is refused, nothing is applied.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.errors import Refused, invalid
from api.rules.bulk_members import introduce, join_many
from api.rules.change import Change
from api.rules.groups import create_group
from api.rules.memberships import place
from api.rules.names import UNASSIGNED_NAME, clean_email, clean_group_name, fold
from api.storage.models import BillingGroup, DirectoryGroup, Member, MemberAlias, Membership

ROWS_MAX: Final = 100_000
FIELD_CHARACTERS_MAX: Final = 1_000
PROGRESS_ROWS: Final = 5_000
COLUMNS: Final = ("group", "email")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many rows of it are done, and of how many."""


def no_progress(_what: str, _done: int, _total: int) -> None:
    """For whoever waits without looking."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file; `line` counts from 1, the header included."""

    line: int
    group: str
    email: str


@dataclass(frozen=True, slots=True)
class Planned:
    """What a row would do: `move`, `create_and_move`, `unassign`, `unchanged` or `refused`."""

    row: Row
    action: str
    why: str = ""
    member_id: str = ""


@dataclass
class Plan:
    """What a file would do. `digest` names it: another file or another state, another digest."""

    rows: list[Planned]
    new_groups: list[str]
    digest: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> list[Planned]:
        return [planned for planned in self.rows if planned.action == "refused"]


def read_rows(raw: bytes) -> list[Row]:
    """The rows of a file. Raises Refused (400) where it is no such file or too long."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(f"Byte {error.start} is not UTF-8.", "file", "Save as UTF-8.") from error
    if "\0" in text:
        raise invalid("The file holds a NUL character.", "file")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if any(header.count(name) != 1 for name in COLUMNS):
            raise invalid(
                "The first line must name the columns `group` and `email`, each once.", "line 1"
            )
        group_at, email_at = header.index("group"), header.index("email")
        for fields in reader:
            if not fields or not any(one.strip() for one in fields):
                continue
            if len(rows) >= ROWS_MAX:
                raise invalid(f"A file has at most {ROWS_MAX} rows.", "file", "Split the file.")
            if len(fields) != len(header):
                raise invalid(
                    f"There are {len(fields)} fields where the header has {len(header)}.",
                    f"line {reader.line_num}",
                )
            if max(map(len, fields)) > FIELD_CHARACTERS_MAX:
                raise invalid("A field is too long.", f"line {reader.line_num}")
            rows.append(Row(reader.line_num, fields[group_at].strip(), fields[email_at].strip()))
    except csv.Error as error:
        raise invalid(f"This is not CSV: {error}.", f"line {reader.line_num}") from error
    return rows


@dataclass
class _State:
    """What planning looks at, loaded in a few statements."""

    members: dict[str, str]
    places: dict[str, str]
    groups: dict[str, str]
    synced: dict[str, str]


def _load(session: Session, organization_id: str) -> _State:
    members = session.execute(
        select(MemberAlias.alias_folded, MemberAlias.member_id)
        .join(
            Member,
            (Member.organization_id == MemberAlias.organization_id)
            & (Member.id == MemberAlias.member_id),
        )
        .where(
            MemberAlias.organization_id == organization_id,
            Member.active,
            Member.removed_at.is_(None),
        )
    )
    places = session.execute(
        select(Membership.member_id, Membership.group_id).where(
            Membership.organization_id == organization_id
        )
    )
    groups = session.execute(
        select(BillingGroup.name_folded, BillingGroup.id, DirectoryGroup.name)
        .outerjoin(
            DirectoryGroup,
            (DirectoryGroup.organization_id == BillingGroup.organization_id)
            & (DirectoryGroup.id == BillingGroup.directory_group_id),
        )
        .where(BillingGroup.organization_id == organization_id, BillingGroup.deleted_at.is_(None))
    ).all()
    return _State(
        members={row[0]: row[1] for row in members},
        places={row[0]: row[1] for row in places},
        groups={row[0]: row[1] for row in groups},
        synced={row[1]: row[2] for row in groups if row[2] is not None},
    )


def plan(
    session: Session,
    organization_id: str,
    rows: Sequence[Row],
    *,
    create_members: bool,
    progress: Progress = no_progress,
) -> Plan:
    """What the rows would do to the organization as it is now."""
    state = _load(session, organization_id)
    seen: dict[str, str] = {}
    new_groups: dict[str, str] = {}
    planned: list[Planned] = []
    for index, row in enumerate(rows):
        planned.append(_plan_row(row, state, seen, new_groups, create_members=create_members))
        if index % PROGRESS_ROWS == 0:
            progress("checked", index, len(rows))
    counts: dict[str, int] = {}
    digest = hashlib.sha256(f"{organization_id}\n{create_members}\n".encode())
    for one in planned:
        counts[one.action] = counts.get(one.action, 0) + 1
        digest.update(
            f"{one.row.line}\0{one.row.group}\0{one.row.email}\0{one.action}\0{one.member_id}\n".encode()
        )
    progress("checked", len(rows), len(rows))
    return Plan(planned, list(new_groups.values()), digest.hexdigest()[:32], counts)


def _plan_row(
    row: Row,
    state: _State,
    seen: dict[str, str],
    new_groups: dict[str, str],
    *,
    create_members: bool,
) -> Planned:
    is_unassigned = fold(row.group) == fold(UNASSIGNED_NAME)
    try:
        email = fold(clean_email(row.email))
        name = "" if is_unassigned else clean_group_name(row.group, "group")
    except Refused as refused:
        return Planned(row, "refused", refused.message)
    group = fold(name)
    if email in seen:
        if seen[email] == group:
            return Planned(row, "unchanged", "The file says so already.")
        return Planned(row, "refused", "The file puts this member into two groups.")
    seen[email] = group
    group_id, member_id = state.groups.get(group, ""), state.members.get(email, "")
    why = _obstacle(state, group_id, member_id, create_members=create_members)
    if why:
        return Planned(row, "refused", why, member_id)
    if name and not group_id:
        new_groups.setdefault(group, name)
    if not member_id:
        return Planned(row, "create_and_move")
    if state.places.get(member_id, "") == group_id and (group_id or is_unassigned):
        return Planned(row, "unchanged", member_id=member_id)
    return Planned(row, "unassign" if is_unassigned else "move", member_id=member_id)


def _obstacle(state: _State, group_id: str, member_id: str, *, create_members: bool) -> str:
    """Why this member cannot come into this group; empty where it can."""
    there = state.places.get(member_id, "")
    if there == group_id and there:
        return ""
    if group_id in state.synced:
        return f"The group follows {state.synced[group_id]!r}."
    if there in state.synced:
        return f"The member's group follows {state.synced[there]!r}."
    if not member_id and not create_members:
        return "No active member has this address."
    return ""


def apply(
    change: Change,
    rows: Sequence[Row],
    digest: str,
    *,
    create_members: bool,
    progress: Progress = no_progress,
) -> Plan:
    """Does what the plan with this digest says, whole.

    Raises Refused (409) where the plan is another one by now, or refuses a row.
    """
    made = plan(
        change.session,
        change.organization_id,
        rows,
        create_members=create_members,
        progress=progress,
    )
    if made.digest != digest:
        raise Refused(
            409,
            "plan_changed",
            "The file or the organization is not as it was when the plan was made.",
            "plan",
            "Make a new dry run, look at it, and apply that.",
        )
    if made.refused:
        raise Refused(
            409,
            "rows_refused",
            f"{len(made.refused)} rows are refused, so nothing is applied; the first is line "
            f"{made.refused[0].row.line}: {made.refused[0].why}",
            f"line {made.refused[0].row.line}",
            "Correct these rows, or leave them out.",
        )
    for name in made.new_groups:
        create_group(change, name)
    groups = _load(change.session, change.organization_id).groups
    joining = [one.row.email for one in made.rows if one.action == "create_and_move"]
    joined = join_many(change, joining)
    progress("applied", len(joining), len(rows))
    placements: dict[str, str | None] = {}
    for one in made.rows:
        if one.action in ("move", "create_and_move", "unassign"):
            member_id = one.member_id or joined.everybody[fold(one.row.email)]
            is_unassigned = fold(one.row.group) == fold(UNASSIGNED_NAME)
            placements[member_id] = None if is_unassigned else groups[fold(one.row.group)]
    place(change, placements, "csv")
    introduce(change, joined, placements, "csv")
    progress("applied", len(rows), len(rows))
    return made


def export(session: Session, organization_id: str) -> str:
    """Every member with a group, as a file that `read_rows` reads back; CRLF line ends."""
    rows: Any = session.execute(
        select(BillingGroup.name, func.coalesce(Member.email, Member.user_name))
        .select_from(Membership)
        .join(
            BillingGroup,
            (BillingGroup.organization_id == Membership.organization_id)
            & (BillingGroup.id == Membership.group_id),
        )
        .join(
            Member,
            (Member.organization_id == Membership.organization_id)
            & (Member.id == Membership.member_id),
        )
        .where(Membership.organization_id == organization_id)
        .order_by(BillingGroup.name_folded, Member.email_folded, Member.id)
    )
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(COLUMNS)
    writer.writerows(row for row in rows if row[1])
    return written.getvalue()
