"""Billing groups: making, renaming, deleting, and syncing with a directory group."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update

from api.errors import Refused, conflict, not_found
from api.ids import new_id
from api.rules.billing_profiles import close_profile
from api.rules.change import Change
from api.rules.directory import directory_members, settle
from api.rules.keys import revoke_keys_of_group
from api.rules.memberships import live_group, members_by_group, place
from api.rules.names import clean_group_name, clean_id, fold
from api.storage.bulk import insert_rows
from api.storage.models import (
    BillingGroup,
    DirectoryGroup,
    DirectoryMembership,
    GroupName,
    Website,
)
from schemas.records import AssignedBy, GroupCreated, GroupDeleted, GroupRenamed

GROUPS_MAX = 10_000
"""Per organization: what one table and one sync can still carry."""


def create_group(change: Change, name: str, group_id: str | None = None) -> BillingGroup:
    """A new, empty group. Raises Refused (409) where the name is taken, or there are too many."""
    cleaned = clean_group_name(name)
    _require_free_name(change, cleaned)
    _require_room(change, 1)
    chosen = clean_id(group_id, "id") if group_id else new_id("group")
    if change.session.get(BillingGroup, (change.organization_id, chosen)) is not None:
        raise conflict(
            "group_exists",
            f"There is, or was, a group {chosen!r}.",
            "id",
            "Choose another id: that of a deleted group is not used again.",
        )
    group = BillingGroup(
        organization_id=change.organization_id,
        id=chosen,
        name=cleaned,
        name_folded=fold(cleaned),
        configured_by=change.actor.how,
        created_at=change.now,
        updated_at=change.now,
    )
    change.session.add(group)
    change.session.flush()
    _begin_name(change, group)
    change.membership_fact(GroupCreated(chosen))
    change.audit("group.create", ("group", chosen), None, audit_fields(group))
    change.dimension("group", chosen)
    return group


@dataclass(frozen=True, slots=True)
class NewGroup:
    """A group that was just made."""

    id: str
    name: str


def create_groups(change: Change, names: Sequence[str]) -> list[NewGroup]:
    """Many new groups in few statements, of names that the caller knows to be free and to differ.

    Raises Refused (409) where there would be too many.
    """
    _require_room(change, len(names))
    groups = [NewGroup(new_id("group"), clean_group_name(name)) for name in names]
    key = {"organization_id": change.organization_id}
    insert_rows(
        change.session,
        BillingGroup,
        [
            {
                **key,
                "id": group.id,
                "name": group.name,
                "name_folded": fold(group.name),
                "configured_by": change.actor.how,
                "created_at": change.now,
                "updated_at": change.now,
            }
            for group in groups
        ],
    )
    insert_rows(
        change.session,
        GroupName,
        [
            {**key, "group_id": group.id, "name": group.name, "valid_from": change.now}
            for group in groups
        ],
    )
    for group in groups:
        change.membership_fact(GroupCreated(group.id))
        after = {
            "name": group.name,
            "configured_by": change.actor.how,
            "directory_group_id": None,
            "deleted": False,
        }
        change.audit("group.create", ("group", group.id), None, after)
        change.dimension("group", group.id)
    return groups


def _require_room(change: Change, more: int) -> None:
    groups = change.session.scalar(
        select(func.count()).where(
            BillingGroup.organization_id == change.organization_id,
            BillingGroup.deleted_at.is_(None),
        )
    )
    if (groups or 0) + more > GROUPS_MAX:
        raise conflict(
            "too_many_groups",
            f"An organization has at most {GROUPS_MAX} groups.",
            "name",
            "Delete groups that are not needed any more.",
        )


def rename_group(change: Change, group_id: str, name: str) -> BillingGroup:
    """Another name, everywhere and at once. Raises Refused (409) where it is taken."""
    group = live_group(change, group_id)
    cleaned = clean_group_name(name)
    _require_free_name(change, cleaned, besides=group_id)
    _rename(change, group, cleaned)
    return group


def delete_group(change: Change, group_id: str, confirm_name: str | None = None) -> None:
    """Deletes a group for ever: all of its usage, past too, is Unassigned from now on.

    With `confirm_name`, raises Refused unless that is the group's name. Members whom another
    synced group waits for go there; all others, and its websites, are Unassigned. Nothing can be
    bought for it any more, and keys that were its admins' end.
    """
    group = live_group(change, group_id)
    if confirm_name is not None and fold(confirm_name.strip()) != group.name_folded:
        raise Refused(
            400,
            "confirmation_differs",
            f"To delete this group for ever, confirm_name must be its name, {group.name!r}.",
            "confirm_name",
            "Type the name of the group. Its usage becomes Unassigned; this cannot be undone.",
        )
    before = audit_fields(group)
    members = members_by_group(change, [group_id])[group_id]
    place(change, dict.fromkeys(members), change.actor.how, leaving=True)
    change.session.execute(
        update(Website)
        .where(Website.organization_id == change.organization_id, Website.group_id == group_id)
        .values(group_id=None, updated_at=change.now)
    )
    group.directory_group_id = None
    group.synced_at = None
    group.name_conflict = None
    group.deleted_at = group.updated_at = change.now
    _end_name(change, group)
    change.session.flush()
    close_profile(change, "group", group_id)
    revoke_keys_of_group(change, group_id)
    change.membership_fact(GroupDeleted(group_id))
    change.audit("group.delete", ("group", group_id), before, None)
    change.dimension("group", group_id)
    settle(change, members)
    _take_freed_names(change)


def attach_directory(change: Change, group_id: str, directory_group_id: str) -> BillingGroup:
    """Syncs a group with a directory group, whose members replace its own from now on.

    Raises Refused: 404 for an unknown directory group, 409 where either is synced already.
    """
    group = live_group(change, group_id)
    key = (change.organization_id, directory_group_id)
    directory = change.session.get(DirectoryGroup, key)
    if directory is None:
        raise not_found("directory group", directory_group_id, "directoryGroupId")
    if group.directory_group_id == directory_group_id:
        return group
    if group.directory_group_id is not None:
        raise conflict(
            "group_synced",
            f"Group {group.name!r} is synced with another directory group.",
            "directoryGroupId",
            "Detach it first.",
        )
    other = change.session.scalar(
        select(BillingGroup).where(
            BillingGroup.organization_id == change.organization_id,
            BillingGroup.directory_group_id == directory_group_id,
        )
    )
    if other is not None:
        raise conflict(
            "directory_group_taken",
            f"The directory group {directory.name!r} is synced with group {other.name!r}.",
            "directoryGroupId",
            "Detach it there first.",
        )
    before = audit_fields(group)
    group.directory_group_id = directory_group_id
    group.synced_at = group.updated_at = change.now
    group.configured_by = "scim"
    change.session.flush()
    change.audit("group.attach", ("group", group_id), before, audit_fields(group))
    follow_name(change, group, directory.name)
    present = members_by_group(change, [group_id])[group_id]
    settle(change, [*present, *directory_members(change, directory_group_id)])
    return group


def detach_directory(change: Change, group_id: str, how: AssignedBy = "manual") -> BillingGroup:
    """Ends the sync; the members stay, as manual ones, unless another synced group has them."""
    group = live_group(change, group_id)
    if group.directory_group_id is None:
        return group
    before = audit_fields(group)
    group.directory_group_id = None
    group.synced_at = None
    group.name_conflict = None
    group.configured_by = how
    group.updated_at = change.now
    change.session.flush()
    change.audit("group.detach", ("group", group_id), before, audit_fields(group))
    settle(change, members_by_group(change, [group_id])[group_id])
    return group


def follow_name(change: Change, group: BillingGroup, directory_name: str) -> None:
    """The synced group takes the directory group's name; if that is taken (or reserved) it keeps
    its own and shows the conflict, since an identity provider would only repeat a refusal."""
    before = group.name_conflict
    try:
        cleaned = clean_group_name(directory_name)
        _require_free_name(change, cleaned, besides=group.id)
    except Refused:
        group.name_conflict = directory_name[:255]
    else:
        group.name_conflict = None
        _rename(change, group, cleaned)
    if group.name_conflict != before:
        subject = ("group", group.id)
        after = {"name_conflict": group.name_conflict}
        change.audit("group.name_conflict", subject, {"name_conflict": before}, after)


def audit_fields(group: BillingGroup) -> dict[str, object]:
    """What the audit log says of a group."""
    return {
        "name": group.name,
        "configured_by": group.configured_by,
        "directory_group_id": group.directory_group_id,
        "deleted": group.deleted_at is not None,
    }


def _rename(change: Change, group: BillingGroup, cleaned: str) -> None:
    if group.name == cleaned:
        return
    before = audit_fields(group)
    _end_name(change, group)
    group.name = cleaned
    group.name_folded = fold(cleaned)
    group.updated_at = change.now
    _begin_name(change, group)
    change.session.flush()
    change.membership_fact(GroupRenamed(group.id))
    change.audit("group.rename", ("group", group.id), before, audit_fields(group))
    change.dimension("group", group.id)
    _take_freed_names(change)


def _take_freed_names(change: Change) -> None:
    """Synced groups whose wanted name has become free take it."""
    waiting = change.session.scalars(
        select(BillingGroup)
        .where(
            BillingGroup.organization_id == change.organization_id,
            BillingGroup.name_conflict.is_not(None),
            BillingGroup.deleted_at.is_(None),
        )
        .order_by(BillingGroup.synced_at, BillingGroup.id)
    )
    for group in list(waiting):
        if group.name_conflict is not None and _name_holder(change, fold(group.name_conflict)) in (
            None,
            group.id,
        ):
            follow_name(change, group, group.name_conflict)


def _require_free_name(change: Change, name: str, besides: str | None = None) -> None:
    holder = _name_holder(change, fold(name))
    if holder is not None and holder != besides:
        raise conflict(
            "group_name_taken",
            f"There is a group {name!r} already.",
            "name",
            "Choose another name; upper and lower case count as the same.",
            group_id=holder,
        )


def _name_holder(change: Change, name_folded: str) -> str | None:
    return change.session.scalar(
        select(BillingGroup.id).where(
            BillingGroup.organization_id == change.organization_id,
            BillingGroup.name_folded == name_folded,
            BillingGroup.deleted_at.is_(None),
        )
    )


def _begin_name(change: Change, group: BillingGroup) -> None:
    change.session.add(
        GroupName(
            organization_id=group.organization_id,
            group_id=group.id,
            name=group.name,
            valid_from=change.now,
        )
    )


def _end_name(change: Change, group: BillingGroup) -> None:
    change.session.execute(
        update(GroupName)
        .where(
            GroupName.organization_id == group.organization_id,
            GroupName.group_id == group.id,
            GroupName.valid_to.is_(None),
        )
        .values(valid_to=change.now)
    )


def delete_directory_group(change: Change, directory_group_id: str) -> None:
    """The identity provider deleted its group. Its billing group is detached and keeps its
    members: pushing a group anew must not tear a team's costs apart."""
    key = (change.organization_id, directory_group_id)
    directory = change.session.get(DirectoryGroup, key)
    if directory is None:
        raise not_found("directory group", directory_group_id, "id")
    group_id = change.session.scalar(
        select(BillingGroup.id).where(
            BillingGroup.organization_id == change.organization_id,
            BillingGroup.directory_group_id == directory_group_id,
        )
    )
    if group_id is not None:
        detach_directory(change, group_id)
    change.session.execute(
        delete(DirectoryMembership).where(
            DirectoryMembership.organization_id == change.organization_id,
            DirectoryMembership.directory_group_id == directory_group_id,
        )
    )
    change.session.delete(directory)
    change.session.flush()
    subject = ("directory_group", directory_group_id)
    change.audit("directory_group.delete", subject, {"name": directory.name}, None)
