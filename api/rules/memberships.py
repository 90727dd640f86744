"""Who is in which group: adding, removing, moving. A member is in one group, or Unassigned."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, select, update

from api.errors import Refused, conflict, invalid, not_found
from api.rules.change import Change
from api.storage.bulk import insert_rows
from api.storage.models import BillingGroup, DirectoryGroup, FormerMembership, Member, Membership
from schemas.records import UNASSIGNED, AssignedBy, MemberAssigned

IDS_A_STATEMENT = 1_000
MEMBERS_A_CALL_MAX = 10_000


def chunks(ids: Iterable[str]) -> list[list[str]]:
    """Ids in portions that fit into one SQL statement."""
    everything = list(ids)
    return [
        everything[start : start + IDS_A_STATEMENT]
        for start in range(0, len(everything), IDS_A_STATEMENT)
    ]


def live_group(change: Change, group_id: str, where: str = "group_id") -> BillingGroup:
    """Raises Refused: 404 where there is none or it was deleted, 409 for Unassigned."""
    if group_id == UNASSIGNED:
        raise conflict(
            "reserved_group",
            "Unassigned is where members without a group are; it cannot be changed.",
            where,
            "Name a group of your own.",
        )
    group = change.session.get(BillingGroup, (change.organization_id, group_id))
    if group is None or group.deleted_at is not None:
        raise not_found("group", group_id, where)
    return group


class Place(NamedTuple):
    """The group a member is in, since when, and which way it came there."""

    member_id: str
    group_id: str
    joined_at: datetime
    how: str


def current_places(change: Change, member_ids: Iterable[str]) -> dict[str, Place]:
    """The place of each member that has one; Unassigned members are absent."""
    places: dict[str, Place] = {}
    for portion in chunks(member_ids):
        rows = change.session.execute(
            select(
                Membership.member_id, Membership.group_id, Membership.joined_at, Membership.how
            ).where(
                Membership.organization_id == change.organization_id,
                Membership.member_id.in_(portion),
            )
        )
        places.update((row[0], Place._make(row)) for row in rows)
    return places


def require_members(change: Change, member_ids: Sequence[str], where: str) -> None:
    """Raises Refused where one is unknown, removed or deactivated, or there are too many."""
    if not member_ids:
        raise invalid("The list of members is empty.", where)
    if len(member_ids) > MEMBERS_A_CALL_MAX:
        raise invalid(f"At most {MEMBERS_A_CALL_MAX} members a call.", where)
    known: set[str] = set()
    for portion in chunks(member_ids):
        known.update(
            change.session.scalars(
                select(Member.id).where(
                    Member.organization_id == change.organization_id,
                    Member.id.in_(portion),
                    Member.removed_at.is_(None),
                    Member.active,
                )
            )
        )
    for index, member_id in enumerate(member_ids):
        if member_id not in known:
            raise not_found("active member", member_id, f"{where}[{index}]")


def refuse_synced(change: Change, group: BillingGroup) -> None:
    """Raises Refused (409): only the directory changes the members of a synced group."""
    if group.directory_group_id is None:
        return
    directory = change.session.get(
        DirectoryGroup, (change.organization_id, group.directory_group_id)
    )
    name = directory.name if directory else group.directory_group_id
    raise Refused(
        409,
        "group_synced",
        f"The members of group {group.name!r} follow the directory group {name!r}.",
        "group_id",
        "Change the members in your identity provider, or detach the group first.",
        details={
            "group_id": group.id,
            "directory_group_id": group.directory_group_id,
            "directory_group_name": name,
        },
    )


def add_members(change: Change, group_id: str, member_ids: Sequence[str], where: str) -> None:
    """Puts Unassigned members into a group; who is there already stays.

    Raises Refused (409) where one is in another group: move it, or remove it first.
    """
    group = live_group(change, group_id)
    refuse_synced(change, group)
    require_members(change, member_ids, where)
    places = current_places(change, member_ids)
    for index, member_id in enumerate(member_ids):
        place_now = places.get(member_id)
        if place_now is not None and place_now.group_id != group_id:
            raise conflict(
                "member_in_other_group",
                f"Member {member_id!r} is in another group.",
                f"{where}[{index}]",
                "Remove the member from that group first, or use an atomic move.",
                group_id=place_now.group_id,
            )
    place(change, dict.fromkeys(member_ids, group_id), change.actor.how)


def remove_members(change: Change, group_id: str, member_ids: Sequence[str], where: str) -> None:
    """Makes members of the group Unassigned. Raises Refused (409) where one is not in it."""
    group = live_group(change, group_id)
    refuse_synced(change, group)
    require_members(change, member_ids, where)
    places = current_places(change, member_ids)
    for index, member_id in enumerate(member_ids):
        place_now = places.get(member_id)
        if place_now is None or place_now.group_id != group_id:
            raise conflict(
                "member_not_in_group",
                f"Member {member_id!r} is not in this group.",
                f"{where}[{index}]",
                "Read the group again: somebody else may have moved the member.",
            )
    place(change, dict.fromkeys(member_ids), change.actor.how)


def move_members(change: Change, moves: Mapping[str, str], where: str = "moves") -> None:
    """Each member to its group (or `group_unassigned`), all or none, in one step."""
    require_members(change, list(moves), where)
    targets = {
        group_id: live_group(change, group_id)
        for group_id in sorted(set(moves.values()) - {UNASSIGNED})
    }
    places = current_places(change, moves)
    placements: dict[str, str | None] = {}
    for member_id, group_id in moves.items():
        place_now = places.get(member_id)
        target = None if group_id == UNASSIGNED else group_id
        if (place_now.group_id if place_now else None) == target:
            continue
        if place_now is not None:
            refuse_synced(change, live_group(change, place_now.group_id))
        if target is not None:
            refuse_synced(change, targets[target])
        placements[member_id] = target
    place(change, placements, change.actor.how)


def place(
    change: Change,
    placements: Mapping[str, str | None],
    how: AssignedBy,
    *,
    leaving: bool = False,
) -> None:
    """Puts each member where it says (None: Unassigned), without asking whether that is allowed.

    Ends and begins memberships, labels the groups, records facts and audit entries. Who is there
    already is left alone. `leaving` is for members who leave the organization, or whose group is
    deleted: that has a fact of its own, and is no way to configure a group.
    """
    places = current_places(change, placements)
    moved = {
        member_id: group_id
        for member_id, group_id in placements.items()
        if (places[member_id].group_id if member_id in places else None) != group_id
    }
    former = [places[member_id] for member_id in moved if member_id in places]
    _end(change, former)
    started = [
        {
            "organization_id": change.organization_id,
            "member_id": member_id,
            "group_id": group_id,
            "joined_at": change.now,
            "how": how,
        }
        for member_id, group_id in moved.items()
        if group_id is not None
    ]
    insert_rows(change.session, Membership, started)
    for member_id, group_id in moved.items():
        before = places[member_id].group_id if member_id in places else UNASSIGNED
        after = group_id or UNASSIGNED
        if not leaving:
            change.membership_fact(MemberAssigned(member_id, after, how))
        change.audit(
            "member.move", ("member", member_id), {"group_id": before}, {"group_id": after}
        )
    touched = {row.group_id for row in former} | {str(row["group_id"]) for row in started}
    _touch(change, touched)
    if not leaving and how != "scim":
        _label(change, touched, how)


def _end(change: Change, ended: Sequence[Place]) -> None:
    insert_rows(
        change.session,
        FormerMembership,
        [
            {
                "organization_id": change.organization_id,
                "member_id": place.member_id,
                "group_id": place.group_id,
                "joined_at": place.joined_at,
                "left_at": change.now,
                "how": place.how,
            }
            for place in ended
        ],
    )
    for portion in chunks(place.member_id for place in ended):
        change.session.execute(
            delete(Membership)
            .where(
                Membership.organization_id == change.organization_id,
                Membership.member_id.in_(portion),
            )
            .execution_options(synchronize_session=False)
        )


def _touch(change: Change, group_ids: Iterable[str]) -> None:
    for portion in chunks(sorted(group_ids)):
        change.session.execute(
            update(BillingGroup)
            .where(
                BillingGroup.organization_id == change.organization_id,
                BillingGroup.id.in_(portion),
                BillingGroup.deleted_at.is_(None),
            )
            .values(updated_at=change.now)
        )


def _label(change: Change, group_ids: Iterable[str], how: AssignedBy) -> None:
    """A group shows the last way by which a person changed its members. `scim` is no such way: it
    is what synced groups show, and a group that a synced one took a member from is none."""
    for portion in chunks(sorted(group_ids)):
        change.session.execute(
            update(BillingGroup)
            .where(
                BillingGroup.organization_id == change.organization_id,
                BillingGroup.id.in_(portion),
                BillingGroup.directory_group_id.is_(None),
                BillingGroup.deleted_at.is_(None),
                BillingGroup.configured_by != how,
            )
            .values(configured_by=how)
        )


def members_by_group(change: Change, group_ids: Sequence[str]) -> dict[str, list[str]]:
    """Who is in each of these groups now."""
    members: dict[str, list[str]] = defaultdict(list)
    for portion in chunks(group_ids):
        rows = change.session.execute(
            select(Membership.group_id, Membership.member_id)
            .where(
                Membership.organization_id == change.organization_id,
                Membership.group_id.in_(portion),
            )
            .order_by(Membership.member_id)
        )
        for group_id, member_id in rows:
            members[group_id].append(member_id)
    return members
