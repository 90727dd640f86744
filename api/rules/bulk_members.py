"""Many members at once, for files: the same rows and facts as one by one, in few statements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from api.ids import new_id
from api.rules.aliases import lost_among
from api.rules.change import Change
from api.rules.members import NewMember, rejoin_or_create
from api.rules.memberships import chunks
from api.rules.names import clean_email, fold
from api.storage.bulk import insert_rows
from api.storage.models import Member, MemberAlias
from schemas import codec
from schemas.records import UNASSIGNED, AssignedBy, MemberAssigned
from schemas.records import MemberAlias as AliasFact


@dataclass(frozen=True, slots=True)
class Joined:
    """Ids by folded address: of everybody, and of those whom `introduce` is to make known."""

    everybody: Mapping[str, str]
    fresh: Mapping[str, str]


def join_many(change: Change, emails: Sequence[str]) -> Joined:
    """Members for addresses that no active member has.

    Whoever had one of these addresses before comes back. The caller puts all of them somewhere,
    and introduces them then.
    """
    cleaned = {fold(clean_email(email)): clean_email(email) for email in emails}
    taken = _taken(change, list(cleaned))
    joined = {
        folded: rejoin_or_create(change, NewMember(cleaned[folded])).id for folded in sorted(taken)
    }
    fresh = {folded: new_id("user") for folded in cleaned if folded not in taken}
    _insert(change, [(folded, cleaned[folded], member_id) for folded, member_id in fresh.items()])
    for folded, member_id in fresh.items():
        subject = ("member", member_id)
        change.audit("member.create", subject, None, {"email": cleaned[folded]})
        change.dimension("member", member_id)
    return Joined(joined | fresh, fresh)


def introduce(
    change: Change, joined: Joined, placements: Mapping[str, str | None], how: AssignedBy
) -> None:
    """The facts of new members that placing them has not told: their addresses, and who of them
    is Unassigned. For the pipeline a member begins with being assigned, so this comes after."""
    for folded, member_id in joined.fresh.items():
        if placements.get(member_id) is None:
            change.member_fact(MemberAssigned(member_id, UNASSIGNED, how))
        change.member_fact(AliasFact(member_id, codec.alias_hash(change.alias_secret, folded)))


def _taken(change: Change, folded: list[str]) -> set[str]:
    """Addresses that somebody has or had."""
    found = lost_among(change, folded)
    for portion in chunks(folded):
        organization = change.organization_id
        for column, query in (
            (MemberAlias.alias_folded, MemberAlias.organization_id),
            (Member.email_folded, Member.organization_id),
        ):
            rows = change.session.scalars(
                select(column).where(query == organization, column.in_(portion))
            )
            found.update(one for one in rows if one)
    return found


def _insert(change: Change, people: Sequence[tuple[str, str, str]]) -> None:
    insert_rows(
        change.session,
        Member,
        [
            {
                "organization_id": change.organization_id,
                "id": member_id,
                "kind": "person",
                "email": email,
                "email_folded": folded,
                "name": "",
                "role": "member",
                "active": True,
                "created_at": change.now,
                "updated_at": change.now,
            }
            for folded, email, member_id in people
        ],
    )
    insert_rows(
        change.session,
        MemberAlias,
        [
            {
                "organization_id": change.organization_id,
                "alias_folded": folded,
                "alias": email,
                "member_id": member_id,
            }
            for folded, email, member_id in people
        ],
    )
