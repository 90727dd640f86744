"""Members as an identity provider provisions them: joined, changed, deactivated, deleted."""

from dataclasses import dataclass
from typing import Any

from api.errors import invalid, not_found
from api.rules.change import Change
from api.rules.members import (
    NewMember,
    address_taken,
    audit_fields,
    create_member,
    deactivate_member,
    holders_of_address,
    reactivate_member,
    record_update,
    remove_member,
    set_addresses,
)
from api.rules.names import EMAIL, check_external_id, fold, refuse_unseen
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
        """Raises Refused where the user name or the external id cannot be kept as it is."""
        if not 0 < len(self.user_name) <= NAME_LIMIT_CHARACTERS:
            raise invalid(f"A userName has 1 to {NAME_LIMIT_CHARACTERS} characters.", "userName")
        if self.user_name != self.user_name.strip():
            raise invalid("The userName begins or ends with a space.", "userName")
        refuse_unseen(self.user_name, "userName")
        check_external_id(self.external_id)


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
    former = _former(change, user)
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


def _former(change: Change, user: ProvisionedUser) -> Member | None:
    """The removed member who had the user name, or else the address.

    Raises Refused (409) where somebody present has one of them.
    """
    former: Member | None = None
    for text, where in ((user.user_name, "userName"), (user.email, "emails")):
        for holder in holders_of_address(change, fold(text)) if text else []:
            if holder.removed_at is None:
                raise address_taken(holder, str(text), where)
            former = former or holder
    return former


def update_provisioned(change: Change, member: Member, user: ProvisionedUser) -> Member:
    """The user is now as sent: names, addresses, and whether it is active."""
    user.check()
    before = audit_fields(member), member.user_name, member.external_id, member.scim
    set_addresses(change, member, user.email, user.user_name)
    member.name = user.shown_name
    member.external_id = user.external_id
    member.scim = user.document
    if before != (audit_fields(member), member.user_name, member.external_id, member.scim):
        record_update(change, member, before[0])
    if user.active:
        reactivate_member(change, member)
    else:
        deactivate_member(change, member)
    return member


def deprovision(change: Change, member_id: str) -> None:
    """The identity provider deleted the user: removed, with all usage kept."""
    remove_member(change, provisioned_member(change, member_id).id)
