"""Which billing cycle a request is about: the one calendar over an organization's settings.

The settings are read from the facts that the control plane has given out, so that past cycles are
those of their time, here as in reports and in SQL.
"""

from collections.abc import Collection
from datetime import date, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.errors import invalid
from api.storage.base import tells_settings
from api.storage.ledgers import OutboxFact
from schemas import codec, topics
from schemas.cycles import BillingCalendar, CalendarChange, Cycle
from schemas.records import OrganizationCreated, OrganizationSettings


def billing_calendar(session: Session, organization_id: str) -> BillingCalendar:
    """By every fact that told the organization's settings, published or not."""
    return billing_calendars(session, [organization_id])[organization_id]


def billing_calendars(
    session: Session, organization_ids: Collection[str]
) -> dict[str, BillingCalendar]:
    """As `billing_calendar`, of several organizations: a page of them, not all."""
    payloads = session.scalars(
        select(OutboxFact.payload).where(
            OutboxFact.organization_id.in_(organization_ids),
            OutboxFact.topic == topics.MEMBERSHIPS,
            tells_settings(OutboxFact.payload),
        )
    )
    changes: dict[str, list[CalendarChange]] = {name: [] for name in organization_ids}
    for record in map(codec.decode_membership, payloads):
        fact = record.fact
        if isinstance(fact, OrganizationCreated | OrganizationSettings):
            changes[record.organization_id].append(
                CalendarChange(
                    record.effective_at, record.version, fact.billing_anchor_day, fact.time_zone
                )
            )
    return {name: BillingCalendar(of_it) for name, of_it in changes.items()}


def cycle_for(
    session: Session,
    organization_id: str,
    day: date | None,
    now: datetime,
    *,
    where: str = "billing_cycle",
) -> Cycle:
    """The cycle that holds this day of the organization's calendar, or the current one.

    Raises Refused (400) for a day before 2000 or after 2200; `where` is the parameter's name.
    """
    calendar = billing_calendar(session, organization_id)
    if day is None:
        return calendar.cycle_at(now)
    if not 2000 <= day.year <= 2200:
        raise invalid("The day must lie between 2000 and 2200.", where)
    return calendar.cycle_of_day(day)
