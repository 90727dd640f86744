"""Prometheus metrics about partners; one set a process. No label comes from what anybody sent."""

from datetime import datetime
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.storage.purchases import ProviderCursor, ProviderEvent, Purchase

PREFIX: Final = "partner:"

REQUESTS: Final = Counter(
    "metering_partner_requests_total",
    "Requests to a partner by operation and outcome: ok, absent, refused, unclear.",
    ["partner", "operation", "outcome"],
)
REQUEST_SECONDS: Final = Histogram(
    "metering_partner_request_duration_seconds",
    "How long a partner takes to answer.",
    ["partner", "operation"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
WEBHOOKS: Final = Counter(
    "metering_partner_webhooks_total",
    "Webhooks of a partner by outcome: stored, repeated, ignored, invalid, forged.",
    ["partner", "outcome"],
)
UNCLEAR: Final = Gauge(
    "metering_partner_purchases_unclear",
    "Purchases of which no answer of a partner is known yet.",
)
OLDEST_UNCLEAR: Final = Gauge(
    "metering_partner_oldest_unclear_seconds",
    "Age of the oldest purchase of which no answer of a partner is known.",
)
PENDING: Final = Gauge(
    "metering_partner_events_pending", "Webhooks of partners that are not yet worked off."
)
OLDEST_PENDING: Final = Gauge(
    "metering_partner_oldest_pending_seconds",
    "Age of the oldest webhook of a partner that is not worked off.",
)
RECONCILED: Final = Gauge(
    "metering_partner_last_reconciled_timestamp_seconds",
    "When everything that a partner changed was compared; absent before the first time.",
    ["partner"],
)


def observe(session: Session, now: datetime) -> None:
    """Sets the gauges to what the database says."""
    unclear, since = session.execute(
        select(func.count(), func.min(Purchase.created_at)).where(
            Purchase.state == "awaiting_payment",
            Purchase.session_id.is_(None),
            Purchase.provider.startswith(PREFIX),
        )
    ).one()
    UNCLEAR.set(unclear)
    OLDEST_UNCLEAR.set(_age_s(now, since))
    pending, oldest = session.execute(
        select(func.count(), func.min(ProviderEvent.received_at)).where(
            ProviderEvent.processed_at.is_(None), ProviderEvent.provider.startswith(PREFIX)
        )
    ).one()
    PENDING.set(pending)
    OLDEST_PENDING.set(_age_s(now, oldest))
    cursors = select(ProviderCursor).where(ProviderCursor.provider.startswith(PREFIX))
    for cursor in session.scalars(cursors):
        name = cursor.provider.removeprefix(PREFIX)
        RECONCILED.labels(name).set(cursor.reconciled_at.timestamp())


def _age_s(now: datetime, since: datetime | None) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0
