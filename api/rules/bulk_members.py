"""Many members at once, for files: the same rows and facts as one by one, in few statements."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from api.ids import new_id
from api.rules.aliases import lost_among
from api.rules.change import Change
from api.rules.members import NewMember, create_member
from api.rules.names import clean_email, fold
from api.storage.bulk import insert_rows
from api.storage.models import Member, MemberAlias
from schemas import codec
from schemas.records import UNASSIGNED, AssignedBy, MemberAssigned
from schemas.records import MemberAlias as AliasFact


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody who is to become a member: the address as it is kept and as it is compared."""

    id: str
    email: str
    folded: str


def newcomer(email: str) -> Newcomer:
    """A newcomer with an id of its own. Raises Refused where this is no address."""
    cleaned = clean_email(email)
    return Newcomer(new_id("user"), cleaned, fold(cleaned))


def join_many(
    change: Change, newcomers: Sequence[Newcomer], claimed: Collection[str] = ()
) -> list[Newcomer]:
    """New members, whose addresses are no member's e-mail address or user name.

    `claimed` are those addresses (folded) that were an alias of somebody who left. Returns whom the
    caller is to introduce, after having put them somewhere.
    """
    known = {*claimed, *lost_among(change, [one.folded for one in newcomers])}
    for one in newcomers:
        if one.folded in known:
            create_member(change, NewMember(one.email, member_id=one.id))
    fresh = [one for one in newcomers if one.folded not in known]
    _insert(change, fresh)
    for one in fresh:
        change.audit("member.create", ("member", one.id), None, {"email": one.email})
        change.dimension("member", one.id)
    return fresh


def introduce(
    change: Change,
    fresh: Sequence[Newcomer],
    placements: Mapping[str, str | None],
    how: AssignedBy,
) -> None:
    """The facts of newcomers that placing them has not told: their addresses, and who of them is
    Unassigned. For the pipeline a member begins with being assigned, so this comes after."""
    for one in fresh:
        if placements.get(one.id) is None:
            change.membership_fact(MemberAssigned(one.id, UNASSIGNED, how))
        change.membership_fact(AliasFact(one.id, codec.alias_hash(change.alias_secret, one.folded)))


def _insert(change: Change, people: Sequence[Newcomer]) -> None:
    insert_rows(
        change.session,
        Member,
        [
            {
                "organization_id": change.organization_id,
                "id": one.id,
                "kind": "person",
                "email": one.email,
                "email_folded": one.folded,
                "name": "",
                "role": "member",
                "active": True,
                "created_at": change.now,
                "updated_at": change.now,
            }
            for one in people
        ],
    )
    insert_rows(
        change.session,
        MemberAlias,
        [
            {
                "organization_id": change.organization_id,
                "alias_folded": one.folded,
                "alias": one.email,
                "member_id": one.id,
            }
            for one in people
        ],
    )
