"""What a CSV file does to an organization: planned on a snapshot, shown, and then applied whole.

A plan is a function of the file and of the organization as it is. It is made outside the write, and
applied only while the organization is still as the plan saw it: the same people, their present
places, and the groups they are to come to. If one row is refused, nothing is applied.

Within the write there is only what must be: comparing the stamp, and inserting rows. 20,000 rows
keep it for about 2.5 s of a core where all of them are new members, and 1.6 s where all move.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy.orm import Session

from api import reading
from api.errors import Refused, invalid, not_found
from api.rules.bulk_members import Newcomer, introduce, join_many, newcomer
from api.rules.change import Change
from api.rules.csv_files import Row
from api.rules.csv_people import Person, Snapshot, load
from api.rules.groups import GROUPS_MAX, create_groups
from api.rules.members import get_member, reactivate_member
from api.rules.memberships import place
from api.rules.names import UNASSIGNED_NAME, clean_email, clean_group_name, fold
from api.storage.models import Organization
from schemas.bounds import CHANGES_MAX
from schemas.records import UNASSIGNED

PROGRESS_ROWS: Final = 5_000
MOVING: Final = frozenset({"move", "create_and_move", "unassign"})

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many rows of it are done, and of how many."""


def no_progress(_what: str, _done: int, _total: int) -> None:
    """For whoever waits without looking."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a row would do: `move`, `create_and_move`, `unassign`, `unchanged` or `refused`.

    `member_id` is empty for somebody new, `to_group` for a group that the file makes.
    """

    row: Row
    action: str
    why: str = ""
    member_id: str = ""
    from_group: str = ""
    to_group: str = ""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A state of an organization: every change of its people or groups makes another one."""

    updated_at: datetime
    memberships_version: int


@dataclass
class Plan:
    """What a file would do. `digest` names it: another file or another state, another digest."""

    file: Sequence[Row]
    create_members: bool
    as_of: Stamp
    rows: list[Planned]
    new_groups: list[str]
    newcomers: dict[str, Newcomer]
    """By their folded address."""
    claimed: list[str]
    """The newcomers' addresses that were an alias of somebody who left."""
    digest: str
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> list[Planned]:
        """The rows that cannot be done, in the order of the file."""
        return [planned for planned in self.rows if planned.action == "refused"]


def plan(
    session: Session,
    organization_id: str,
    rows: Sequence[Row],
    *,
    create_members: bool,
    progress: Progress = no_progress,
) -> Plan:
    """What the rows would do to the organization as it is now. Raises Refused (404)."""
    organization = reading.organization(session, organization_id)
    planner = _Planner(load(session, organization_id), create_members)
    planned: list[Planned] = []
    for index, row in enumerate(rows):
        planned.append(planner.plan_row(row))
        if index % PROGRESS_ROWS == 0:
            progress("checked", index, len(rows))
    counts: dict[str, int] = {}
    for one in planned:
        counts[one.action] = counts.get(one.action, 0) + 1
    progress("checked", len(rows), len(rows))
    return Plan(
        rows,
        create_members,
        _stamp(organization),
        planned,
        list(planner.new_groups.values()),
        planner.newcomers,
        [address for address in planner.newcomers if address in planner.seen.aliases],
        _digest(organization_id, planned, create_members=create_members),
        counts,
    )


def _stamp(organization: Organization) -> Stamp:
    return Stamp(organization.updated_at, organization.memberships_version)


def _digest(organization_id: str, planned: list[Planned], *, create_members: bool) -> str:
    """Of all that the plan says and has seen; why a row is refused is only prose."""
    content = [
        (one.row, one.action, one.member_id, one.from_group, one.to_group) for one in planned
    ]
    raw = msgspec.json.encode((organization_id, create_members, content))
    return hashlib.sha256(raw).hexdigest()[:32]


@dataclass
class _Planner:
    """Plans row after row, and remembers whom and which new groups the rows before named."""

    seen: Snapshot
    create_members: bool
    new_groups: dict[str, str] = field(default_factory=dict)
    newcomers: dict[str, Newcomer] = field(default_factory=dict)
    _before: dict[str, tuple[str, Planned]] = field(default_factory=dict)

    def plan_row(self, row: Row) -> Planned:
        try:
            group, name = self._group(row)
            person = self._person(row)
        except Refused as refused:
            return Planned(row, "refused", refused.message)
        key = person.id if person else fold(row.email)
        before = self._before.get(key)
        if before is not None:
            return _repeated(row, before[1], is_same=before[0] == group)
        planned = self._first(row, person, group, name)
        self._before[key] = group, planned
        return planned

    def _first(self, row: Row, person: Person | None, group: str, name: str) -> Planned:
        """What the first row about somebody does."""
        member_id = person.id if person else ""
        place_now = self.seen.places.get(member_id, UNASSIGNED)
        target = UNASSIGNED if group == fold(UNASSIGNED_NAME) else self.seen.groups.get(group, "")
        why = self._obstacle(person, place_now, target, group)
        if why:
            return Planned(row, "refused", why, member_id, place_now, target)
        if person is None:
            self.newcomers[fold(row.email)] = newcomer(row.email)
        if not target:
            self.new_groups.setdefault(group, name)
        action = _action(person, place_now, target)
        return Planned(row, action, "", member_id, place_now, target)

    def _group(self, row: Row) -> tuple[str, str]:
        """The folded name and the name of the row's group, which may be new."""
        folded = fold(row.group)
        if folded == fold(UNASSIGNED_NAME) or folded in self.seen.groups:
            return folded, row.group
        name = clean_group_name(row.group, "group")
        return fold(name), name

    def _person(self, row: Row) -> Person | None:
        """Whom the row is about; None for somebody new. Raises Refused."""
        if not row.member_id:
            person = self.seen.by_address(row.email)
            if person is None and self.create_members:
                clean_email(row.email)
            return person
        person = self.seen.people.get(row.member_id)
        if person is None:
            raise not_found("member", row.member_id)
        if row.email and not self.seen.has_address(person, row.email):
            raise invalid(f"The member {person.id!r} does not have this address.")
        return person

    def _obstacle(self, person: Person | None, place_now: str, target: str, group: str) -> str:
        """Why this member cannot come into this group; empty where it can."""
        if person is not None and person.status == "deactivated":
            return f"The member {person.id!r} is deactivated."
        if (person is None or person.status == "former") and not self.create_members:
            return "No active member has this address."
        if person is not None:
            changes = (person.status == "former") + (place_now != target)
            if changes > self.seen.changes_left.get(person.id, changes):
                return f"The member {person.id!r} has been moved {CHANGES_MAX} times."
        if place_now == target:
            return ""
        for synced in (target, place_now):
            if synced in self.seen.synced:
                whose = "The group" if synced == target else "The member's group"
                return f"{whose} follows the directory group {self.seen.synced[synced]!r}."
        groups = len(self.seen.groups) + len(self.new_groups)
        if not target and group not in self.new_groups and groups >= GROUPS_MAX:
            return f"An organization has at most {GROUPS_MAX} groups."
        return ""


def _repeated(row: Row, first: Planned, *, is_same: bool) -> Planned:
    """One more row about somebody whom a row before was about."""
    if not is_same:
        why = f"Line {first.row.line} puts this member into another group."
        return Planned(row, "refused", why, first.member_id)
    if first.action == "refused":
        return replace(first, row=row)
    return replace(
        first, row=row, action="unchanged", why=f"Line {first.row.line} says so already."
    )


def _action(person: Person | None, place_now: str, target: str) -> str:
    if person is None or person.status != "active":
        return "create_and_move"
    if place_now == target:
        return "unchanged"
    return "unassign" if target == UNASSIGNED else "move"


def apply(change: Change, accepted: Plan, digest: str, *, progress: Progress = no_progress) -> Plan:
    """Does what the plan with this digest says, whole.

    Only where the organization was changed after `accepted` was made, it is planned again here,
    within the write. Raises Refused (409) where the plan is another one by now, or refuses a row.
    """
    if accepted.digest == digest and accepted.as_of != _stamp(change.organization):
        accepted = plan(
            change.session,
            change.organization_id,
            accepted.file,
            create_members=accepted.create_members,
        )
    _require(accepted, digest)
    groups = {fold(one.name): one.id for one in create_groups(change, accepted.new_groups)}
    fresh = join_many(change, list(accepted.newcomers.values()), accepted.claimed)
    progress("applied", len(accepted.newcomers), len(accepted.rows))
    placements: dict[str, str | None] = {}
    for one in accepted.rows:
        if one.action not in MOVING:
            continue
        if one.action == "create_and_move" and one.member_id:
            reactivate_member(change, get_member(change, one.member_id))
        member_id = one.member_id or accepted.newcomers[fold(one.row.email)].id
        target = one.to_group or groups[fold(one.row.group)]
        placements[member_id] = None if target == UNASSIGNED else target
    place(change, placements, "csv")
    introduce(change, fresh, placements, "csv")
    progress("applied", len(accepted.rows), len(accepted.rows))
    return accepted


def _require(accepted: Plan, digest: str) -> None:
    if accepted.digest != digest:
        raise Refused(
            409,
            "plan_changed",
            "The file or the organization is not as it was when the plan was made.",
            "plan",
            "Make a new dry run, look at it, and apply that.",
        )
    if accepted.refused:
        first = accepted.refused[0]
        raise Refused(
            409,
            "rows_refused",
            f"{len(accepted.refused)} rows are refused, so nothing is applied; the first is line "
            f"{first.row.line}: {first.why}",
            f"line {first.row.line}",
            "Correct these rows, or leave them out.",
        )
