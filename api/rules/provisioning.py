"""Members as an identity provider provisions them: joined, changed, deactivated, deleted."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from api.errors import Refused, conflict, not_found
from api.rules.change import Change
from api.rules.members import (
    NewMember,
    create_member,
    deactivate_member,
    reactivate_member,
    record_update,
    remove_member,
    set_addresses,
    shown,
)
from api.rules.names import EMAIL, fold
from api.storage.base import NAME_LIMIT_CHARACTERS
from api.storage.models import Member


@dataclass(frozen=True, slots=True)
class ProvisionedUser:
    """What we understand of a SCIM user; `document` is all of it, as it was sent."""

    user_name: str
    emails: tuple[str, ...]
    """The preferred one first."""
    name: str
    active: bool
    external_id: str | None
    document: dict[str, Any]

    @property
    def email(self) -> str | None:
        """The first that is an address; the user name stands in where it looks like one."""
        addresses = (text for text in (*self.emails, self.user_name) if EMAIL.match(text))
        return next((text for text in addresses if len(text) <= NAME_LIMIT_CHARACTERS), None)

    @property
    def shown_name(self) -> str:
        printable = "".join(character for character in self.name if character.isprintable())
        return printable.strip()[:NAME_LIMIT_CHARACTERS]

    def check(self) -> None:
        """Raises Refused where the user name cannot be kept."""
        if not 0 < len(self.user_name) <= NAME_LIMIT_CHARACTERS:
            raise Refused(
                400,
                "invalid",
                f"A userName has 1 to {NAME_LIMIT_CHARACTERS} characters.",
                "userName",
                details={"scimType": "invalidValue"},
            )


def provisioned_member(change: Change, member_id: str) -> Member:
    """Raises Refused (404) where there is none, or it was removed."""
    member = change.session.get(Member, (change.organization_id, member_id))
    if member is None or member.removed_at is not None or member.erased_at is not None:
        raise not_found("user", member_id, "id")
    return member


def provision(change: Change, user: ProvisionedUser) -> Member:
    """A user joins; who had been removed under the same name comes back with the old id.

    Raises Refused (409) where somebody present has the user name or the address.
    """
    user.check()
    former = _holder(change, user)
    if former is not None and former.removed_at is None:
        raise conflict("address_taken", f"There is a user {user.user_name!r} already.", "userName")
    if former is not None:
        reactivate_member(change, former)
        return update_provisioned(change, former, user)
    member = create_member(
        change,
        NewMember(
            user.email,
            user.shown_name,
            user_name=user.user_name,
            external_id=user.external_id,
            scim=user.document,
        ),
    )
    if not user.active:
        deactivate_member(change, member)
    return member


def _holder(change: Change, user: ProvisionedUser) -> Member | None:
    folded = fold(user.user_name)
    addresses = {folded, fold(user.email)} if user.email else {folded}
    return change.session.scalar(
        select(Member)
        .where(
            Member.organization_id == change.organization_id,
            (Member.user_name_folded == folded) | Member.email_folded.in_(addresses),
        )
        .order_by(Member.removed_at.is_not(None))
        .limit(1)
    )


def update_provisioned(change: Change, member: Member, user: ProvisionedUser) -> Member:
    """The user is now as sent: names, addresses, and whether it is active."""
    user.check()
    before = shown(member), member.user_name, member.external_id, member.scim
    set_addresses(change, member, user.email, user.user_name)
    member.name = user.shown_name
    member.external_id = user.external_id
    member.scim = user.document
    if before != (shown(member), member.user_name, member.external_id, member.scim):
        record_update(change, member, before[0])
    if user.active:
        reactivate_member(change, member)
    else:
        deactivate_member(change, member)
    return member


def deprovision(change: Change, member_id: str) -> None:
    """The identity provider deleted the user: removed, with all usage kept."""
    remove_member(change, provisioned_member(change, member_id).id)
