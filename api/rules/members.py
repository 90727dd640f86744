"""Members: joining, changing, deactivation, removal, and the addresses they are known by."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from api.errors import Refused, conflict, invalid, not_found
from api.ids import new_id
from api.rules.aliases import lost_alias
from api.rules.change import Change
from api.rules.directory import leave_all_directories, settle
from api.rules.memberships import current_places, live_group, place, refuse_synced
from api.rules.names import clean_email, clean_id, clean_name, fold
from api.storage.models import Member, MemberAlias
from schemas import codec
from schemas.records import UNASSIGNED, MemberAssigned, MemberRemoved
from schemas.records import MemberAlias as AliasFact

ALIASES_MAX = 50
ROLES = ("owner", "admin", "member")
KINDS = ("person", "service_account")


@dataclass(frozen=True, slots=True)
class NewMember:
    """What is known of somebody who joins; `user_name`, `external_id` and `scim` come by SCIM."""

    email: str | None
    name: str = ""
    role: str = "member"
    kind: str = "person"
    member_id: str | None = None
    user_name: str | None = None
    external_id: str | None = None
    scim: dict[str, Any] | None = None


def get_member(change: Change, member_id: str, where: str = "member_id") -> Member:
    """Raises Refused (404) where there is none, or the person was erased."""
    member = change.session.get(Member, (change.organization_id, member_id))
    if member is None or member.erased_at is not None:
        raise not_found("member", member_id, where)
    return member


def create_member(change: Change, new: NewMember) -> Member:
    """Somebody joins, Unassigned. Raises Refused (409) where the id or an address is taken."""
    chosen = clean_id(new.member_id, "id") if new.member_id else new_id("user")
    if change.session.get(Member, (change.organization_id, chosen)) is not None:
        raise conflict(
            "member_exists",
            f"There is a member {chosen!r} already.",
            "id",
            "Change that member, or choose another id.",
        )
    if new.role not in ROLES:
        raise invalid(f"A role is one of {', '.join(ROLES)}.", "role")
    if new.kind not in KINDS:
        raise invalid(f"A kind is one of {', '.join(KINDS)}.", "kind")
    if new.email is None and new.kind == "person" and new.user_name is None:
        raise invalid("A person needs an e-mail address.", "email")
    member = Member(
        organization_id=change.organization_id,
        id=chosen,
        kind=new.kind,
        name=clean_name(new.name) if new.name.strip() else "",
        role=new.role,
        active=True,
        external_id=new.external_id,
        scim=new.scim,
        created_at=change.now,
        updated_at=change.now,
    )
    set_addresses(change, member, new.email, new.user_name)
    change.session.add(member)
    change.session.flush()
    change.membership_fact(MemberAssigned(chosen, UNASSIGNED, change.actor.how))
    claim_own_addresses(change, member)
    change.audit("member.create", ("member", chosen), None, audit_fields(member))
    change.dimension("member", chosen)
    return member


def set_addresses(change: Change, member: Member, email: str | None, user_name: str | None) -> None:
    """The member's e-mail address and SCIM user name. Raises Refused (409) where one is taken.

    Usage arrives under both, so nobody's address may be another member's user name.
    """
    email = clean_email(email) if email is not None else None
    current = (member.email_folded, member.user_name_folded)
    for text, where in ((email, "email"), (user_name, "userName")):
        if text is not None and fold(text) not in current:
            _require_free(change, member.id, text, where)
    member.email = email
    member.email_folded = fold(email) if email else None
    member.user_name = user_name
    member.user_name_folded = fold(user_name) if user_name else None


def _require_free(change: Change, member_id: str, text: str, where: str) -> None:
    for holder in holders_of_address(change, fold(text)):
        if holder.id != member_id:
            raise address_taken(holder, text, where)


def holders_of_address(change: Change, folded: str) -> list[Member]:
    """Who has this e-mail address or user name, members who were removed last."""
    holders: dict[str, Member] = {}
    for column in (Member.user_name_folded, Member.email_folded):
        # Each of the two look-ups can use its own index.
        for holder in change.session.scalars(
            select(Member).where(Member.organization_id == change.organization_id, column == folded)
        ):
            holders[holder.id] = holder
    return sorted(holders.values(), key=lambda holder: holder.removed_at is not None)


def address_taken(holder: Member, address: str, where: str) -> Refused:
    """409: an address that is somebody else's."""
    kind = "The former member" if holder.removed_at is not None else "The member"
    return conflict(
        "address_taken",
        f"{kind} {holder.id!r} has the address {address!r}.",
        where,
        "Change that member, or use another address.",
        member_id=holder.id,
    )


def claim_own_addresses(change: Change, member: Member) -> None:
    """Usage that arrives under the e-mail address or user name is the member's.

    Former addresses stay, for late usage, until somebody else has them.
    """
    addresses = {fold(text): text for text in (member.user_name, member.email) if text}
    for folded, text in sorted(addresses.items()):
        alias = change.session.get(MemberAlias, (change.organization_id, folded))
        if alias is not None and alias.member_id == member.id:
            continue
        if alias is not None:
            _end_alias(change, alias)
            change.session.flush()
        _insert_alias(change, member.id, text)


def add_alias(change: Change, member_id: str, alias: str) -> None:
    """One more address for a member. Raises Refused (409) where it is somebody else's."""
    member = get_member(change, member_id)
    cleaned = clean_name(alias, "alias")
    alias_row = change.session.get(MemberAlias, (change.organization_id, fold(cleaned)))
    if alias_row is not None and alias_row.member_id == member.id:
        return
    lost = lost_alias(change, fold(cleaned))
    if alias_row is not None or (lost is not None and lost.member_id != member.id):
        holder = alias_row.member_id if alias_row is not None else lost.member_id if lost else ""
        raise conflict(
            "alias_taken",
            f"The member {holder!r} has the alias {cleaned!r}.",
            "alias",
            "Remove it there first.",
            member_id=holder,
        )
    alias_count = change.session.scalar(
        select(func.count()).where(
            MemberAlias.organization_id == change.organization_id,
            MemberAlias.member_id == member_id,
        )
    )
    if (alias_count or 0) >= ALIASES_MAX:
        raise invalid(f"A member has at most {ALIASES_MAX} aliases.", "alias")
    _insert_alias(change, member.id, cleaned)


def remove_alias(change: Change, member_id: str, alias: str) -> None:
    """Usage under this address is nobody's any more. Raises Refused for a main address."""
    member = get_member(change, member_id)
    folded = fold(alias)
    alias_row = change.session.get(MemberAlias, (change.organization_id, folded))
    if alias_row is None or alias_row.member_id != member.id:
        raise not_found("alias", alias, "alias")
    if folded in (member.email_folded, member.user_name_folded):
        raise conflict(
            "alias_in_use",
            "This is the member's own address.",
            "alias",
            "Give the member another address first.",
        )
    _end_alias(change, alias_row)


def _insert_alias(change: Change, member_id: str, text: str) -> None:
    folded = fold(text)
    change.session.add(
        MemberAlias(
            organization_id=change.organization_id,
            alias_folded=folded,
            alias=text,
            member_id=member_id,
        )
    )
    lost = lost_alias(change, folded)
    if lost is not None:
        change.session.delete(lost)
    change.session.flush()
    if lost is None or lost.member_id != member_id:
        if lost is not None:
            _alias_fact(change, lost.member_id, folded, removed=True)
        _alias_fact(change, member_id, folded, removed=False)
    change.audit("member.alias_added", ("member", member_id), None, {"alias": text})


def _end_alias(change: Change, alias: MemberAlias) -> None:
    _alias_fact(change, alias.member_id, alias.alias_folded, removed=True)
    change.session.delete(alias)
    subject = ("member", alias.member_id)
    change.audit("member.alias_removed", subject, {"alias": alias.alias}, None)


def _alias_fact(change: Change, member_id: str, folded: str, *, removed: bool) -> None:
    hashed = codec.alias_hash(change.alias_secret, folded)
    change.membership_fact(AliasFact(member_id, hashed, removed))


def update_member(
    change: Change,
    member_id: str,
    *,
    email: str | None = None,
    name: str | None = None,
    role: str | None = None,
) -> Member:
    """Changes what is given. Raises Refused where an address is taken or a role unknown."""
    member = get_member(change, member_id)
    before = audit_fields(member)
    if role is not None and role not in ROLES:
        raise invalid(f"A role is one of {', '.join(ROLES)}.", "role")
    if email is not None:
        set_addresses(change, member, email, member.user_name)
    member.name = member.name if name is None else clean_name(name)
    member.role = role or member.role
    if before != audit_fields(member):
        record_update(change, member, before)
    return member


def record_update(change: Change, member: Member, before: dict[str, object]) -> None:
    """What every change to a member's name, address or role leaves behind."""
    member.updated_at = change.now
    change.session.flush()
    claim_own_addresses(change, member)
    change.audit("member.update", ("member", member.id), before, audit_fields(member))
    change.dimension("member", member.id)


def deactivate_member(change: Change, member: Member) -> None:
    """Later usage is Unassigned; the member can come back."""
    if not member.active:
        return
    before = audit_fields(member)
    member.active = False
    _leave(change, member, "member.deactivate", before)


def reactivate_member(change: Change, member: Member) -> None:
    """Back, Unassigned, or where the directory has the member."""
    if member.active and member.removed_at is None:
        return
    before = audit_fields(member)
    member.active = True
    member.removed_at = None
    member.updated_at = change.now
    change.session.flush()
    change.membership_fact(MemberAssigned(member.id, UNASSIGNED, change.actor.how))
    change.audit("member.activate", ("member", member.id), before, audit_fields(member))
    change.dimension("member", member.id)
    settle(change, [member.id])


def remove_member(change: Change, member_id: str) -> None:
    """The member leaves the organization; usage so far stays where it is.

    Raises Refused (409) where only the directory may do that.
    """
    member = get_member(change, member_id)
    if member.removed_at is not None:
        return
    if change.actor.how != "scim":
        place_now = current_places(change, [member_id]).get(member_id)
        if place_now is not None:
            refuse_synced(change, live_group(change, place_now.group_id))
    leave_all_directories(change, member_id)
    before = audit_fields(member)
    member.removed_at = change.now
    member.active = False
    _leave(change, member, "member.remove", before)


def _leave(change: Change, member: Member, action: str, before: dict[str, object]) -> None:
    member.updated_at = change.now
    change.session.flush()
    place(change, {member.id: None}, change.actor.how, leaving=True)
    change.membership_fact(MemberRemoved(member.id))
    change.audit(action, ("member", member.id), before, audit_fields(member))
    change.dimension("member", member.id)


def audit_fields(member: Member) -> dict[str, object]:
    """What the audit log says of a member; erasing a person rewrites it."""
    return {
        "name": member.name,
        "email": member.email,
        "user_name": member.user_name,
        "external_id": member.external_id,
        "role": member.role,
        "active": member.active,
        "removed": member.removed_at is not None,
    }


def find_by_address(change: Change, address: str) -> Member | None:
    """The member with this e-mail address or alias, if one is there and not removed."""
    alias = change.session.get(MemberAlias, (change.organization_id, fold(address.strip())))
    if alias is None:
        return None
    member = change.session.get(Member, (change.organization_id, alias.member_id))
    return member if member is not None and member.removed_at is None else None


def rejoin_or_create(change: Change, new: NewMember) -> Member:
    """Creates a member, or brings back the removed one who has this address."""
    address = new.email or new.user_name or ""
    holders = holders_of_address(change, fold(address)) if address else []
    former = holders[0] if holders and holders[0].removed_at is not None else None
    if former is None:
        return create_member(change, new)
    if new.member_id not in (None, former.id):
        raise address_taken(former, address, "email")
    reactivate_member(change, former)
    return former
