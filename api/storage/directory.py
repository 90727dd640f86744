"""Which synced billing groups want a member: one query, for who moves members and who shows it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.storage.models import BillingGroup, DirectoryMembership, Member


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A synced group that wants a member, since when; the smallest wins."""

    since: datetime
    group_id: str


def candidates(
    session: Session, organization_id: str, member_ids: Sequence[str] | None = None
) -> dict[str, list[Candidate]]:
    """The synced groups that want each active member, whoever wins first; two or more are a
    conflict to show. Of these members, no more than a statement takes, or of all."""
    query = (
        select(
            DirectoryMembership.member_id,
            DirectoryMembership.joined_at,
            BillingGroup.synced_at,
            BillingGroup.id,
        )
        .join(
            BillingGroup,
            (BillingGroup.organization_id == DirectoryMembership.organization_id)
            & (BillingGroup.directory_group_id == DirectoryMembership.directory_group_id),
        )
        .join(
            Member,
            (Member.organization_id == DirectoryMembership.organization_id)
            & (Member.id == DirectoryMembership.member_id),
        )
        .where(
            DirectoryMembership.organization_id == organization_id,
            Member.active,
            Member.removed_at.is_(None),
        )
        .order_by(DirectoryMembership.member_id)
    )
    if member_ids is not None:
        query = query.where(DirectoryMembership.member_id.in_(member_ids))
    wanting: dict[str, list[Candidate]] = defaultdict(list)
    for member_id, joined_at, synced_at, group_id in session.execute(query):
        wanting[member_id].append(Candidate(max(joined_at, synced_at or joined_at), group_id))
    return {member_id: sorted(groups) for member_id, groups in wanting.items()}
