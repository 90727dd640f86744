"""What planning a CSV file looks at, loaded in a few statements; and the rows of an export."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.rules.bounds import changes_left
from api.rules.csv_files import write_rows
from api.rules.names import UNASSIGNED_NAME, fold
from api.storage.models import BillingGroup, DirectoryGroup, Member, MemberAlias, Membership

Status = Literal["active", "deactivated", "former"]


@dataclass(frozen=True, slots=True)
class Person:
    """A member; `former` are those who were removed, and may come back."""

    id: str
    status: Status


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An organization's people and groups at one moment."""

    people: dict[str, Person]
    main: dict[str, str]
    """The member of each e-mail address and user name."""
    aliases: dict[str, str]
    """The member of each alias, former addresses included."""
    places: dict[str, str]
    """The group of each member that has one."""
    groups: dict[str, str]
    """The group of each folded name."""
    synced: dict[str, str]
    """The name of the directory group that a group follows."""
    changes_left: dict[str, int]
    """How often a member may still be moved, of those whom that concerns."""

    def by_address(self, address: str) -> Person | None:
        """Whose address this is; None where it would be that of somebody new.

        A former member comes back under the e-mail address or user name that was the main one; an
        alias of theirs is free for others.
        """
        folded = fold(address)
        alias = self.people.get(self.aliases.get(folded, ""))
        if alias is not None and alias.status == "active":
            return alias
        main = self.people.get(self.main.get(folded, ""))
        if main is not None:
            return main
        return alias if alias is not None and alias.status == "deactivated" else None

    def has_address(self, person: Person, address: str) -> bool:
        """Whether this is one of the person's addresses."""
        folded = fold(address)
        return person.id in (self.aliases.get(folded), self.main.get(folded))


def load(session: Session, organization_id: str) -> Snapshot:
    """The organization as this session sees it. The erased are nobody."""
    people: dict[str, Person] = {}
    main: dict[str, str] = {}
    for member_id, active, removed_at, *addresses in session.execute(
        select(
            Member.id,
            Member.active,
            Member.removed_at,
            Member.email_folded,
            Member.user_name_folded,
        ).where(Member.organization_id == organization_id, Member.erased_at.is_(None))
    ):
        status: Status = "active" if active else "deactivated"
        if removed_at is not None:
            status = "former"
        people[member_id] = Person(member_id, status)
        main.update((address.strip(), member_id) for address in addresses if address)
    aliases = session.execute(
        select(MemberAlias.alias_folded, MemberAlias.member_id).where(
            MemberAlias.organization_id == organization_id
        )
    )
    places = session.execute(
        select(Membership.member_id, Membership.group_id).where(
            Membership.organization_id == organization_id
        )
    )
    groups = session.execute(
        select(BillingGroup.name_folded, BillingGroup.id, DirectoryGroup.name)
        .outerjoin(
            DirectoryGroup,
            (DirectoryGroup.organization_id == BillingGroup.organization_id)
            & (DirectoryGroup.id == BillingGroup.directory_group_id),
        )
        .where(BillingGroup.organization_id == organization_id, BillingGroup.deleted_at.is_(None))
    ).all()
    return Snapshot(
        people,
        main,
        {row[0].strip(): row[1] for row in aliases},
        {row[0]: row[1] for row in places},
        {row[0]: row[1] for row in groups},
        {row[1]: row[2] for row in groups if row[2] is not None},
        changes_left(session, organization_id),
    )


def export(session: Session, organization_id: str) -> str:
    """Every active member and its group, as a file that `read_rows` reads back. Sent back as it
    is, it changes nothing."""
    rows = session.execute(
        select(
            func.coalesce(BillingGroup.name, UNASSIGNED_NAME),
            func.coalesce(Member.email, Member.user_name, ""),
            Member.id,
        )
        .select_from(Member)
        .outerjoin(
            Membership,
            (Membership.organization_id == Member.organization_id)
            & (Membership.member_id == Member.id),
        )
        .outerjoin(
            BillingGroup,
            (BillingGroup.organization_id == Membership.organization_id)
            & (BillingGroup.id == Membership.group_id),
        )
        .where(
            Member.organization_id == organization_id, Member.active, Member.removed_at.is_(None)
        )
        .order_by(
            BillingGroup.name_folded.is_(None),
            BillingGroup.name_folded,
            Member.email_folded,
            Member.id,
        )
    )
    return write_rows((row[0], row[1], row[2]) for row in rows)
