"""The lists of `/v1` as queries, which are read page by page."""

from typing import Any

from sqlalchemy import Select, func, select

from api.storage.models import (
    BillingGroup,
    DirectoryGroup,
    DirectoryMembership,
    GroupName,
    Member,
    Membership,
)
from schemas.records import UNASSIGNED


def members(organization_id: str, group_id: str = "") -> Select[*tuple[Any, ...]]:
    """Everybody but the erased, each with the id of the group (None: Unassigned); of one group
    where one is named, and then of Unassigned only who is active."""
    query = (
        select(Member, Membership.group_id)
        .outerjoin(
            Membership,
            (Membership.organization_id == Member.organization_id)
            & (Membership.member_id == Member.id),
        )
        .where(Member.organization_id == organization_id, Member.erased_at.is_(None))
    )
    if group_id == UNASSIGNED:
        return query.where(Membership.group_id.is_(None), Member.active)
    return query.where(Membership.group_id == group_id) if group_id else query


def directory_groups(organization_id: str) -> Select[*tuple[Any, ...]]:
    """The identity provider's groups, with how many members each has and which billing group
    follows it."""
    counted = (
        select(func.count())
        .where(
            DirectoryMembership.organization_id == DirectoryGroup.organization_id,
            DirectoryMembership.directory_group_id == DirectoryGroup.id,
        )
        .correlate(DirectoryGroup)
        .scalar_subquery()
    )
    return (
        select(DirectoryGroup, counted, BillingGroup.id)
        .outerjoin(
            BillingGroup,
            (BillingGroup.organization_id == DirectoryGroup.organization_id)
            & (BillingGroup.directory_group_id == DirectoryGroup.id),
        )
        .where(DirectoryGroup.organization_id == organization_id)
    )


def group_names(organization_id: str, group_id: str) -> Select[GroupName]:
    """Every name that the group had, the oldest first."""
    return (
        select(GroupName)
        .where(GroupName.organization_id == organization_id, GroupName.group_id == group_id)
        .order_by(GroupName.id)
    )
