"""Reading the control plane's tables for answers: whole lists in few statements, as plain rows."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.errors import not_found
from api.storage.base import rfc3339
from api.storage.directory import candidates
from api.storage.models import (
    BillingGroup,
    DirectoryGroup,
    FormerMembership,
    Member,
    MemberAlias,
    Membership,
    Organization,
    Website,
)
from schemas.codec import fold
from schemas.cycles import Cycle
from schemas.records import UNASSIGNED

_PERSON: Final = {
    "member_id": "userId",
    "joined_at": "joinedAt",
    "left_at": "leftAt",
    "spend_cents": "spendCents",
    "daily_spend": "dailySpend",
}


class Person(msgspec.Struct, gc=False, rename=_PERSON.get):
    """A member as reports of a group show it; `left_at` is None for who is in it now.

    There may be 20,000 in one answer, so it is encoded as it is, under Cursor's names, and the
    database writes the times out (`rfc3339`). `spend_cents` is set by who knows the spend.
    """

    member_id: str
    name: str
    email: str
    joined_at: str
    left_at: str | None = None
    spend_cents: float = 0.0
    daily_spend: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


def organization(session: Session, organization_id: str) -> Organization:
    """Raises Refused (404) where there is none."""
    row = session.get(Organization, organization_id)
    if row is None:
        raise not_found("organization", organization_id, "organization_id")
    return row


def groups(session: Session, organization_id: str) -> Sequence[BillingGroup]:
    """Live groups, in the order of their names."""
    return session.scalars(
        select(BillingGroup)
        .where(BillingGroup.organization_id == organization_id, BillingGroup.deleted_at.is_(None))
        .order_by(BillingGroup.name_folded, BillingGroup.id)
    ).all()


def matching(
    rows: Iterable[BillingGroup], search: str, configured_by: str | None = None
) -> list[BillingGroup]:
    """Those whose name holds the text (upper or lower case), or whose id it is, and that are
    configured in this way, where one is given."""
    folded = fold(search.strip())
    return [
        row
        for row in rows
        if (folded in row.name_folded or search.strip() == row.id)
        and configured_by in (None, row.configured_by)
    ]


def group(session: Session, organization_id: str, group_id: str) -> BillingGroup:
    """Raises Refused (404) where there is none, or it was deleted."""
    row = session.get(BillingGroup, (organization_id, group_id))
    if row is None or row.deleted_at is not None:
        raise not_found("group", group_id, "group_id")
    return row


def website(session: Session, organization_id: str, website_id: str) -> Website:
    """Raises Refused (404) where there is none."""
    row = session.get(Website, (organization_id, website_id))
    if row is None:
        raise not_found("website", website_id, "website_id")
    return row


def member_counts(session: Session, organization_id: str) -> dict[str, int]:
    """How many active members each group has, Unassigned included."""
    counts = {
        row[0]: int(row[1])
        for row in session.execute(
            select(Membership.group_id, func.count())
            .where(Membership.organization_id == organization_id)
            .group_by(Membership.group_id)
        )
    }
    everybody = session.scalar(
        select(func.count()).where(
            Member.organization_id == organization_id,
            Member.active,
            Member.removed_at.is_(None),
        )
    )
    counts[UNASSIGNED] = int(everybody or 0) - sum(counts.values())
    return counts


def current_people(
    session: Session, organization_id: str, group_id: str | None = None
) -> dict[str, list[Person]]:
    """Who is in each group (or in one), by group; Unassigned members too."""
    query = (
        select(
            func.coalesce(Membership.group_id, UNASSIGNED),
            Member.id,
            Member.name,
            func.coalesce(Member.email, ""),
            rfc3339(func.coalesce(Membership.joined_at, Member.created_at)),
        )
        .select_from(Member)
        .outerjoin(
            Membership,
            (Membership.organization_id == Member.organization_id)
            & (Membership.member_id == Member.id),
        )
        .where(
            Member.organization_id == organization_id,
            Member.active,
            Member.removed_at.is_(None),
        )
        .order_by(Member.id)
    )
    if group_id == UNASSIGNED:
        query = query.where(Membership.group_id.is_(None))
    elif group_id is not None:
        query = query.where(Membership.group_id == group_id)
    people: dict[str, list[Person]] = defaultdict(list)
    for group, member_id, name, email, joined_at in session.connection().execute(query).all():
        people[group].append(Person(member_id, name, email, joined_at))
    return people


def former_people(
    session: Session, organization_id: str, cycle: Cycle, group_id: str | None = None
) -> dict[str, list[Person]]:
    """Who was in each group during the cycle and left it; the last time counts."""
    query = (
        select(
            FormerMembership.group_id,
            Member.id,
            Member.name,
            func.coalesce(Member.email, ""),
            rfc3339(func.min(FormerMembership.joined_at)),
            rfc3339(func.max(FormerMembership.left_at)),
        )
        .join(
            Member,
            (Member.organization_id == FormerMembership.organization_id)
            & (Member.id == FormerMembership.member_id),
        )
        .where(
            FormerMembership.organization_id == organization_id,
            FormerMembership.left_at > cycle.start,
            FormerMembership.joined_at < cycle.end,
        )
        .group_by(FormerMembership.group_id, Member.id, Member.name, Member.email)
        .order_by(Member.id)
    )
    if group_id is not None:
        query = query.where(FormerMembership.group_id == group_id)
    people: dict[str, list[Person]] = defaultdict(list)
    for group, member_id, name, email, joined_at, left_at in (
        session.connection().execute(query).all()
    ):
        people[group].append(Person(member_id, name, email, joined_at, left_at))
    return people


def directory_names(session: Session, organization_id: str) -> dict[str, str]:
    rows = session.execute(
        select(DirectoryGroup.id, DirectoryGroup.name).where(
            DirectoryGroup.organization_id == organization_id
        )
    )
    return {row[0]: row[1] for row in rows}


def sync_conflicts(
    session: Session, organization_id: str, group_id: str | None = None
) -> dict[str, list[str]]:
    """Active members whom several synced groups want, with the ids of those groups: the one that
    has had the member longest, where it is, first."""
    conflicts = {
        member_id: [group.group_id for group in groups]
        for member_id, groups in candidates(session, organization_id).items()
        if len(groups) > 1
    }
    return {
        member_id: group_ids
        for member_id, group_ids in conflicts.items()
        if group_id in (None, *group_ids)
    }


def aliases(session: Session, organization_id: str, member_id: str) -> list[str]:
    """Every address of a member, in the order of their folded forms."""
    return list(
        session.scalars(
            select(MemberAlias.alias)
            .where(
                MemberAlias.organization_id == organization_id, MemberAlias.member_id == member_id
            )
            .order_by(MemberAlias.alias_folded)
        )
    )
