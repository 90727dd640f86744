"""Directory groups, and which synced billing group a member belongs to because of them.

A member's place is a function of what is stored: of all synced groups whose directory group has
the member, the one that has had the member longest. So a second one never takes a member away,
the loss of the first leads to the second, and repeating a message changes nothing.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, select, tuple_

from api.errors import conflict
from api.ids import new_id
from api.rules.change import Change
from api.rules.memberships import chunks, current_places, place
from api.rules.names import check_external_id, clean_name, fold
from api.storage.bulk import insert_rows
from api.storage.directory import Candidate, candidates
from api.storage.models import BillingGroup, DirectoryGroup, DirectoryMembership


def settle(change: Change, member_ids: Iterable[str]) -> None:
    """Moves each of these members to where the directory puts it.

    Members whom no synced group wants keep a group of another kind, but lose a synced one.
    """
    ids = sorted(set(member_ids))
    wanting: dict[str, list[Candidate]] = {}
    for portion in chunks(ids):
        wanting |= candidates(change.session, change.organization_id, portion)
    places = current_places(change, ids)
    synced = _synced_groups(change)
    placements: dict[str, str | None] = {}
    for member_id in ids:
        place_now = places.get(member_id)
        if member_id in wanting:
            placements[member_id] = wanting[member_id][0].group_id
        elif place_now is not None and place_now.group_id in synced:
            placements[member_id] = None
    place(change, placements, "scim")


def _synced_groups(change: Change) -> set[str]:
    return set(
        change.session.scalars(
            select(BillingGroup.id).where(
                BillingGroup.organization_id == change.organization_id,
                BillingGroup.directory_group_id.is_not(None),
            )
        )
    )


def create_directory_group(change: Change, name: str, external_id: str | None) -> DirectoryGroup:
    """A group that the identity provider made. Raises Refused (409) where the name is taken."""
    cleaned = clean_name(name, "displayName")
    check_external_id(external_id)
    _require_free_name(change, cleaned, None)
    directory = DirectoryGroup(
        organization_id=change.organization_id,
        id=new_id("dir_group"),
        name=cleaned,
        name_folded=fold(cleaned),
        external_id=external_id,
        created_at=change.now,
        updated_at=change.now,
    )
    change.session.add(directory)
    change.session.flush()
    subject = ("directory_group", directory.id)
    after = {"name": cleaned, "external_id": external_id}
    change.audit("directory_group.create", subject, None, after)
    return directory


def set_external_id(change: Change, directory: DirectoryGroup, external_id: str | None) -> None:
    """Takes the id by which the identity provider knows the group."""
    check_external_id(external_id)
    if external_id == directory.external_id:
        return
    subject = ("directory_group", directory.id)
    before, after = {"external_id": directory.external_id}, {"external_id": external_id}
    change.audit("directory_group.external_id", subject, before, after)
    directory.external_id = external_id
    directory.updated_at = change.now


def rename_directory_group(change: Change, directory: DirectoryGroup, name: str) -> bool:
    """Takes the identity provider's new name; true if it differs from the old one."""
    cleaned = clean_name(name, "displayName")
    if cleaned == directory.name:
        return False
    _require_free_name(change, cleaned, directory.id)
    subject = ("directory_group", directory.id)
    before = {"name": directory.name}
    change.audit("directory_group.rename", subject, before, {"name": cleaned})
    directory.name = cleaned
    directory.name_folded = fold(cleaned)
    directory.updated_at = change.now
    change.session.flush()
    return True


def _require_free_name(change: Change, name: str, besides: str | None) -> None:
    holder = change.session.scalar(
        select(DirectoryGroup.id).where(
            DirectoryGroup.organization_id == change.organization_id,
            DirectoryGroup.name_folded == fold(name),
        )
    )
    if holder is not None and holder != besides:
        raise conflict(
            "directory_group_name_taken",
            f"There is a directory group {name!r} already.",
            "displayName",
            "Use the existing group, or another name.",
        )


def directory_members(change: Change, directory_group_id: str) -> list[str]:
    return list(
        change.session.scalars(
            select(DirectoryMembership.member_id)
            .where(
                DirectoryMembership.organization_id == change.organization_id,
                DirectoryMembership.directory_group_id == directory_group_id,
            )
            .order_by(DirectoryMembership.member_id)
        )
    )


def set_directory_members(change: Change, directory: DirectoryGroup, member_ids: set[str]) -> None:
    """The directory group has exactly these members. Who stays keeps the time of joining, so
    that a message which removes and adds the same member changes nothing."""
    present = set(directory_members(change, directory.id))
    left, joined = sorted(present - member_ids), sorted(member_ids - present)
    _remove(change, directory.id, left)
    insert_rows(
        change.session,
        DirectoryMembership,
        [
            {
                "organization_id": change.organization_id,
                "directory_group_id": directory.id,
                "member_id": member_id,
                "joined_at": change.now,
            }
            for member_id in joined
        ],
    )
    if left or joined:
        directory.updated_at = change.now
        subject = ("directory_group", directory.id)
        change.audit("directory_group.members", subject, {"left": left}, {"joined": joined})
        change.session.flush()
        settle(change, [*left, *joined])


def _remove(change: Change, directory_group_id: str, member_ids: Sequence[str]) -> None:
    for portion in chunks(member_ids):
        keys = [(change.organization_id, directory_group_id, member_id) for member_id in portion]
        change.session.execute(
            delete(DirectoryMembership)
            .where(
                tuple_(
                    DirectoryMembership.organization_id,
                    DirectoryMembership.directory_group_id,
                    DirectoryMembership.member_id,
                ).in_(keys)
            )
            .execution_options(synchronize_session=False)
        )


def leave_all_directories(change: Change, member_id: str) -> None:
    """The member is in no directory group any more (deleted by the identity provider)."""
    change.session.execute(
        delete(DirectoryMembership).where(
            DirectoryMembership.organization_id == change.organization_id,
            DirectoryMembership.member_id == member_id,
        )
    )
