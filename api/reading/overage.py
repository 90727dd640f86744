"""What no credits were left for, by organization and period, from ClickHouse.

When a period is, says each organization's own calendar; so a month is asked for by organizations.
Every question raises Refused (503) where ClickHouse does not answer, as those of `spend` do.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.errors import invalid
from api.reading.billing_calendar import billing_calendar, billing_calendars
from api.reading.spend import Spend
from api.storage.models import Organization
from schemas.cycles import BillingCalendar, Cycle, PeriodError
from warehouse.overage import COLUMNS, ORGANIZATIONS_AT_ONCE, OverageRow, overage, periods_of

__all__ = [
    "COLUMNS",
    "ORGANIZATIONS_AT_ONCE",
    "OverageRow",
    "check_period",
    "organizations_after",
    "overage_of",
    "period_of",
    "periods_among",
]


def check_period(period: str) -> None:
    """Raises Refused (400) where the text is no period in any calendar."""
    try:
        BillingCalendar().period(period)
    except PeriodError as error:
        raise _refused(error) from error


def period_of(session: Session, organization_id: str, period: str | None, now: datetime) -> Cycle:
    """In the organization's calendar; None is the running cycle. Raises Refused (400)."""
    calendar = billing_calendar(session, organization_id)
    try:
        return calendar.cycle_at(now) if period is None else calendar.period(period)
    except PeriodError as error:
        raise _refused(error) from error


def organizations_after(session: Session, after: str | None, limit: int) -> dict[str, str]:
    """Names of organizations by id, in the order of the ids."""
    query = select(Organization.id, Organization.name).order_by(Organization.id).limit(limit)
    if after is not None:
        query = query.where(Organization.id > after)
    return {row[0]: row[1] for row in session.execute(query)}


def periods_among(
    session: Session, organization_ids: Collection[str], period: str
) -> dict[str, Cycle]:
    """The period of each, without those in whose calendar no cycle begins in that month."""
    return periods_of(billing_calendars(session, organization_ids), period)


def overage_of(spend: Spend, periods: dict[str, Cycle]) -> list[OverageRow]:
    """Those that have overage, in the order of `periods`; one row a currency."""
    return overage(spend.query, periods)


def _refused(error: PeriodError) -> Exception:
    text = str(error)
    return invalid(f"{text[:1].upper()}{text[1:]}.", "query.period")
