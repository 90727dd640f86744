"""Writes one fact into the tables, as far as a fact can tell: all but names and addresses.

Aliases and the default price book can only be told from all facts together; the importer does both
after the last fact.
"""

from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from api.rules.billing_profiles import end_profile
from api.rules.keys import end_keys_of_group
from api.rules.names import fold
from api.storage.ledgers import Grant, Price
from api.storage.models import (
    BillingGroup,
    FormerMembership,
    Member,
    Membership,
    Organization,
    Website,
)
from schemas import records
from schemas.records import UNASSIGNED, CreditRecord, MembershipRecord


def apply_fact(
    session: Session, organization: Organization | None, record: MembershipRecord | CreditRecord
) -> Organization:
    """Writes what the fact says; returns its organization (made, if this fact makes it)."""
    fact: Any = record.fact
    if organization is None:
        organization = _make(session, record)
    if isinstance(fact, records.OrganizationCreated | records.OrganizationSettings):
        for name in fact.__struct_fields__:
            setattr(organization, name, getattr(fact, name))
        return organization
    match fact:
        case records.MemberAssigned() | records.MemberRemoved():
            _place(session, record, fact)
        case records.GroupCreated():
            _group(session, record, fact.group_id)
        case records.GroupDeleted():
            _delete_group(session, record, fact.group_id)
        case records.WebsiteAssigned():
            _website(session, record, fact)
        case records.PriceSet():
            _price(session, record, fact)
        case records.Granted() | records.Revoked():
            _grant(session, record, fact)
        case _:
            # Facts of renamings carry no name, and no table keeps adjustments.
            pass
    session.flush()
    return organization


def _make(session: Session, record: MembershipRecord | CreditRecord) -> Organization:
    organization = Organization(
        id=record.organization_id,
        name=record.organization_id,
        memberships_version=0,
        credits_version=0,
        created_at=record.recorded_at,
        updated_at=record.recorded_at,
    )
    session.add(organization)
    session.flush()
    return organization


def _member(session: Session, record: Any, member_id: str) -> Member:
    member = session.get(Member, (record.organization_id, member_id))
    if member is None:
        member = Member(
            organization_id=record.organization_id,
            id=member_id,
            name=member_id,
            active=True,
            created_at=record.recorded_at,
            updated_at=record.recorded_at,
        )
        session.add(member)
        session.flush()
    return member


def _place(session: Session, record: Any, fact: Any) -> None:
    member = _member(session, record, fact.member_id)
    is_removed = isinstance(fact, records.MemberRemoved)
    member.active = not is_removed
    member.updated_at = max(member.updated_at, record.recorded_at)
    _leave(session, record, fact.member_id)
    group_id = UNASSIGNED if is_removed else fact.group_id
    if group_id != UNASSIGNED:
        _group(session, record, group_id)
        session.add(
            Membership(
                organization_id=record.organization_id,
                member_id=fact.member_id,
                group_id=group_id,
                joined_at=record.effective_at,
                how=fact.how,
            )
        )


def _leave(session: Session, record: Any, member_id: str) -> None:
    membership = session.get(Membership, (record.organization_id, member_id))
    if membership is None:
        return
    session.add(
        FormerMembership(
            organization_id=membership.organization_id,
            member_id=membership.member_id,
            group_id=membership.group_id,
            joined_at=membership.joined_at,
            left_at=record.effective_at,
            how=membership.how,
        )
    )
    session.delete(membership)
    session.flush()


def _group(session: Session, record: Any, group_id: str) -> None:
    if session.get(BillingGroup, (record.organization_id, group_id)) is None:
        session.add(
            BillingGroup(
                organization_id=record.organization_id,
                id=group_id,
                name=group_id[:255],
                name_folded=fold(group_id[:255]),
                configured_by="api",
                created_at=record.recorded_at,
                updated_at=record.recorded_at,
            )
        )
        session.flush()


def _delete_group(session: Session, record: Any, group_id: str) -> None:
    _group(session, record, group_id)
    group = session.get_one(BillingGroup, (record.organization_id, group_id))
    inside = (
        Membership.organization_id == record.organization_id,
        Membership.group_id == group_id,
    )
    session.execute(delete(Membership).where(*inside))
    session.execute(
        update(Website)
        .where(Website.organization_id == record.organization_id, Website.group_id == group_id)
        .values(group_id=None)
    )
    group.directory_group_id = group.synced_at = group.name_conflict = None
    group.deleted_at = group.updated_at = record.effective_at
    end_profile(session, record.organization_id, ("group", group_id), record.effective_at)
    end_keys_of_group(session, record.organization_id, group_id, record.effective_at)


def _website(session: Session, record: Any, fact: Any) -> None:
    group_id = None if fact.group_id == UNASSIGNED else fact.group_id
    website = session.get(Website, (record.organization_id, fact.website_id))
    if group_id is not None:
        _group(session, record, group_id)
    if website is None:
        session.add(
            Website(
                organization_id=record.organization_id,
                id=fact.website_id,
                name=fact.website_id[:255],
                group_id=group_id,
                created_at=record.recorded_at,
                updated_at=record.recorded_at,
            )
        )
    else:
        website.group_id = group_id


def _price(session: Session, record: Any, fact: Any) -> None:
    if fact.book == "default":
        return
    session.add(
        Price(
            organization_id=record.organization_id,
            meter=fact.meter,
            micro_per_million_units=fact.micro_per_million_units,
            effective_at=record.effective_at,
            created_at=record.recorded_at,
        )
    )


def _grant(session: Session, record: Any, fact: Any) -> None:
    grant = session.get(Grant, (record.organization_id, fact.grant_id))
    if isinstance(fact, records.Revoked):
        if grant is not None:
            grant.revoked_micro = min(grant.amount_micro, grant.revoked_micro + fact.amount_micro)
        return
    if grant is None:
        session.add(
            Grant(
                organization_id=record.organization_id,
                id=fact.grant_id,
                pool_kind=fact.pool_kind,
                pool_id=fact.pool_id,
                kind=fact.kind,
                amount_micro=fact.amount_micro,
                revoked_micro=0,
                source=fact.source,
                effective_at=record.effective_at,
                expires_at=fact.expires_at,
                awaiting_payment=fact.awaiting_payment,
                created_at=record.recorded_at,
            )
        )
