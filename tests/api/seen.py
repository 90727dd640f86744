"""What tests look at: the facts that wait in the outbox, and who is where."""

from sqlalchemy import select

from api.rules.change import Control
from api.storage.ledgers import AuditEntry, OutboxFact
from api.storage.models import BillingGroup, Membership
from schemas import codec
from schemas.records import MembershipRecord


def facts(control: Control, organization_id: str = "org_a") -> list[MembershipRecord]:
    """All facts of `memberships`, in the order of their versions."""
    with control.store.read() as session:
        rows = session.scalars(
            select(OutboxFact.payload)
            .where(OutboxFact.organization_id == organization_id, OutboxFact.topic == "memberships")
            .order_by(OutboxFact.version)
        )
        return [codec.decode_membership(payload) for payload in rows]


def places(control: Control, organization_id: str = "org_a") -> dict[str, str]:
    """Each member's group; Unassigned ones are absent."""
    with control.store.read() as session:
        rows = session.execute(
            select(Membership.member_id, Membership.group_id).where(
                Membership.organization_id == organization_id
            )
        )
        return dict(rows.all())


def replayed_places(control: Control, organization_id: str = "org_a") -> dict[str, str]:
    """Each member's group as the pipeline would have it, from the facts alone."""
    places: dict[str, str] = {}
    for record in facts(control, organization_id):
        fact = record.fact
        kind = type(fact).__name__
        if kind == "MemberAssigned":
            places[fact.member_id] = fact.group_id  # type: ignore[union-attr]
        elif kind == "MemberRemoved":
            places.pop(fact.member_id, None)  # type: ignore[union-attr]
        elif kind == "GroupDeleted":
            gone = fact.group_id  # type: ignore[union-attr]
            places = {member: group for member, group in places.items() if group != gone}
    return {member: group for member, group in places.items() if group != "group_unassigned"}


def group(control: Control, group_id: str, organization_id: str = "org_a") -> BillingGroup:
    with control.store.read() as session:
        row = session.get(BillingGroup, (organization_id, group_id))
        assert row is not None
        return row


def actions(control: Control, organization_id: str = "org_a") -> list[str]:
    with control.store.read() as session:
        return list(
            session.scalars(
                select(AuditEntry.action)
                .where(AuditEntry.organization_id == organization_id)
                .order_by(AuditEntry.id)
            )
        )
