"""Erases a person's names and addresses in the database and, by the outbox, in ClickHouse.

Facts carry neither. The person's usage stays, under an id that names nobody.
"""

from typing import Any

from sqlalchemy import delete, select, update

from api.errors import not_found
from api.rules.change import Change
from api.rules.directory import leave_all_directories
from api.rules.memberships import place
from api.storage.ledgers import AuditEntry, IdempotencyKey
from api.storage.models import LostAlias, Member, MemberAlias
from schemas import codec
from schemas.records import MemberAlias as AliasFact
from schemas.records import MemberRemoved

ERASED = "(erased)"
PERSONAL = ("name", "email", "user_name", "external_id", "alias")


def erase_member(change: Change, member_id: str) -> None:
    """Removes the member and all that tells who it was. Raises Refused (404) for nobody.

    Repeating it is harmless. Kept answers of the organization's last day go too, since one of
    them may hold the name.
    """
    member = change.session.get(Member, (change.organization_id, member_id))
    if member is None:
        raise not_found("member", member_id, "member_id")
    leave_all_directories(change, member_id)
    place(change, {member_id: None}, change.actor.how, leaving=True)
    if member.removed_at is None:
        change.membership_fact(MemberRemoved(member_id))
    _erase_aliases(change, member_id)
    member.name = ""
    member.email = member.email_folded = None
    member.user_name = member.user_name_folded = None
    member.external_id = None
    member.scim = None
    member.active = False
    member.removed_at = member.removed_at or change.now
    member.erased_at = member.updated_at = change.now
    change.session.execute(
        delete(IdempotencyKey).where(IdempotencyKey.organization_id == change.organization_id)
    )
    _erase_audit(change, member_id)
    change.audit("member.erase", ("member", member_id), None, None)
    change.dimension("member", member_id)


def _erase_aliases(change: Change, member_id: str) -> None:
    """Those too of which only the hash is known here."""
    rows = change.session.scalars(
        select(MemberAlias).where(
            MemberAlias.organization_id == change.organization_id,
            MemberAlias.member_id == member_id,
        )
    ).all()
    lost_aliases = change.session.scalars(
        select(LostAlias).where(
            LostAlias.organization_id == change.organization_id, LostAlias.member_id == member_id
        )
    ).all()
    hashes = [codec.alias_hash(change.alias_secret, row.alias_folded) for row in rows]
    for hashed in sorted([*hashes, *(row.alias_hash for row in lost_aliases)]):
        change.membership_fact(AliasFact(member_id, hashed, removed=True))
    for row in (*rows, *lost_aliases):
        change.session.delete(row)
    change.session.flush()


def _erase_audit(change: Change, member_id: str) -> None:
    """What was done stays in the audit log; to whom, only as an id."""
    rows = change.session.execute(
        select(AuditEntry.id, AuditEntry.before, AuditEntry.after).where(
            AuditEntry.organization_id == change.organization_id,
            AuditEntry.subject_kind == "member",
            AuditEntry.subject_id == member_id,
        )
    ).all()
    for entry_id, before, after in rows:
        change.session.execute(
            update(AuditEntry)
            .where(AuditEntry.id == entry_id)
            .values(before=_without_person(before), after=_without_person(after))
        )


def _without_person(entry: dict[str, Any] | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {key: ERASED if key in PERSONAL and value else value for key, value in entry.items()}
