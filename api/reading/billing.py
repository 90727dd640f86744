"""What is bought for a pool: its profile, purchases, subscriptions and invoices."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from api.errors import conflict, invalid, not_found
from api.reading import group, website
from api.storage.models import Website
from api.storage.purchases import BillingProfile, Invoice, Purchase, Subscription
from schemas.records import UNASSIGNED

UNFINISHED: Final = ("created", "awaiting_payment")
"""States of purchases that nobody has paid, and somebody still may."""
LISTED_MAX: Final = 200
"""Subscriptions, or waiting purchases, in one answer; there are fewer by the rules of purchases."""
WEBSITES_MAX: Final = 1_000
"""Websites of a group in one answer; all of them are counted."""
MONTHS_ROWS_MAX: Final = 5_000
MONTH: Final = r"^(20\d{2}|21\d{2})-(0[1-9]|1[0-2])$"


def open_profile(
    session: Session, organization_id: str, pool_kind: str, pool_id: str
) -> BillingProfile | None:
    """Who pays for the pool; None where billing is not enabled."""
    return session.scalar(
        select(BillingProfile).where(
            BillingProfile.organization_id == organization_id,
            BillingProfile.pool_kind == pool_kind,
            BillingProfile.pool_id == pool_id,
            BillingProfile.closed_at.is_(None),
        )
    )


def profile_of(session: Session, organization_id: str, profile_id: str) -> BillingProfile:
    """A profile by its id, open or closed. Raises Refused (404)."""
    profile = session.get(BillingProfile, (organization_id, profile_id))
    if profile is None:
        raise not_found("billing profile", profile_id, "profile_id")
    return profile


def pool_name(session: Session, organization_id: str, pool_kind: str, pool_id: str) -> str:
    """Raises Refused: 409 for Unassigned, which has no credits, 404 where there is no such pool."""
    if pool_kind == "website":
        return website(session, organization_id, pool_id).name
    if pool_id == UNASSIGNED:
        raise conflict(
            "reserved_group",
            "Unassigned is where members without a group are; it has no credits.",
            "group_id",
            "Name a group of your own.",
        )
    return group(session, organization_id, pool_id).name


def websites_of(session: Session, organization_id: str, group_id: str) -> Sequence[Website]:
    """The websites of a group, in the order of their names; at most `WEBSITES_MAX`."""
    return session.scalars(
        select(Website)
        .where(Website.organization_id == organization_id, Website.group_id == group_id)
        .order_by(Website.name, Website.id)
        .limit(WEBSITES_MAX)
    ).all()


def website_count(session: Session, organization_id: str, group_id: str) -> int:
    """How many websites a group has."""
    query = (
        select(func.count())
        .select_from(Website)
        .where(Website.organization_id == organization_id, Website.group_id == group_id)
    )
    return session.scalar(query) or 0


def purchases_of(organization_id: str, pool_kind: str, pool_id: str) -> Select[Purchase]:
    """Every purchase for a pool, also by profiles that are closed."""
    return (
        select(Purchase)
        .join(
            BillingProfile,
            (BillingProfile.organization_id == Purchase.organization_id)
            & (BillingProfile.id == Purchase.profile_id),
        )
        .where(
            Purchase.organization_id == organization_id,
            BillingProfile.pool_kind == pool_kind,
            BillingProfile.pool_id == pool_id,
        )
    )


def purchase_of(
    session: Session, organization_id: str, pool_kind: str, pool_id: str, purchase_id: str
) -> Purchase:
    """Raises Refused (404) where the pool has no such purchase."""
    query = purchases_of(organization_id, pool_kind, pool_id).where(Purchase.id == purchase_id)
    row = session.scalar(query)
    if row is None:
        raise not_found("purchase", purchase_id, "purchase_id")
    return row


def waiting_purchases(
    session: Session, organization_id: str, pool_kind: str, pool_id: str
) -> Sequence[Purchase]:
    """Those that nobody has paid yet, the newest first."""
    query = purchases_of(organization_id, pool_kind, pool_id)
    return session.scalars(
        query.where(Purchase.state.in_(UNFINISHED))
        .order_by(Purchase.created_at.desc(), Purchase.id.desc())
        .limit(LISTED_MAX)
    ).all()


def live_subscriptions(
    session: Session, organization_id: str, pool_kind: str, pool_id: str
) -> Sequence[tuple[Purchase, Subscription]]:
    """Subscriptions that have not ended, the oldest first, each with what it is of."""
    query = (
        purchases_of(organization_id, pool_kind, pool_id)
        .add_columns(Subscription)
        .join(
            Subscription,
            (Subscription.organization_id == Purchase.organization_id)
            & (Subscription.purchase_id == Purchase.id),
        )
        .where(Subscription.ended_at.is_(None))
        .order_by(Purchase.created_at, Purchase.id)
        .limit(LISTED_MAX)
    )
    return [(row[0], row[1]) for row in session.execute(query)]


def one_time_packages(session: Session, organization_id: str, pool_kind: str, pool_id: str) -> int:
    """How many packages were bought once, and paid."""
    paid = purchases_of(organization_id, pool_kind, pool_id).where(
        Purchase.kind == "one_time", Purchase.state == "paid"
    )
    return session.scalar(select(func.coalesce(func.sum(paid.subquery().c.quantity), 0))) or 0


@dataclass(frozen=True, slots=True)
class Span:
    """`start <= time < end`."""

    start: datetime
    end: datetime


def month_span(month: str, zone: ZoneInfo) -> Span:
    """A month of the calendar, as `2026-11`. Raises Refused (400) where it is none."""
    if not re.match(MONTH, month):
        raise invalid(f"{month!r} is no month.", "month", "Write it as 2026-11.")
    year, number = int(month[:4]), int(month[5:])
    start = datetime(year, number, 1, tzinfo=zone)
    years, following = divmod(number, 12)
    return Span(start, datetime(year + years, following + 1, 1, tzinfo=zone))


def paid_invoices(
    organization_id: str, pool_kind: str, pool_id: str, span: Span | None = None
) -> Select[Invoice, Purchase]:
    """Paid invoices of a pool, each with its purchase; of a span of time where one is given."""
    query = (
        select(Invoice, Purchase)
        .join(
            Purchase,
            (Purchase.organization_id == Invoice.organization_id)
            & (Purchase.id == Invoice.purchase_id),
        )
        .join(
            BillingProfile,
            (BillingProfile.organization_id == Purchase.organization_id)
            & (BillingProfile.id == Purchase.profile_id),
        )
        .where(
            Invoice.organization_id == organization_id,
            Invoice.status == "paid",
            BillingProfile.pool_kind == pool_kind,
            BillingProfile.pool_id == pool_id,
        )
    )
    if span is not None:
        query = query.where(Invoice.paid_at >= span.start, Invoice.paid_at < span.end)
    return query


def paid_times(
    session: Session, organization_id: str, pool_kind: str, pool_id: str
) -> Sequence[datetime]:
    """When invoices of a pool were paid, the newest first; to offer the months that have any."""
    query = paid_invoices(organization_id, pool_kind, pool_id)
    times = session.scalars(
        query.with_only_columns(Invoice.paid_at)
        .where(Invoice.paid_at.is_not(None))
        .order_by(Invoice.paid_at.desc())
        .limit(MONTHS_ROWS_MAX)
    )
    return [moment for moment in times if moment is not None]


def subscription_of(
    session: Session, organization_id: str, purchase_id: str
) -> tuple[Purchase, Subscription]:
    """A subscription with its purchase, whose id it has. Raises Refused (404)."""
    key = (organization_id, purchase_id)
    purchase, subscription = session.get(Purchase, key), session.get(Subscription, key)
    if purchase is None or subscription is None:
        raise not_found("subscription", purchase_id, "subscription_id")
    return purchase, subscription
