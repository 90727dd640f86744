"""What is measured of payments; one set a process.

Waiting events and what is unmatched are read from the database at each scrape, as the outbox's are.
"""

from datetime import datetime
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.storage.purchases import STRIPE, ProviderCursor, ProviderEvent, Unmatched

REQUESTS: Final = Counter(
    "metering_stripe_requests_total", "Requests to Stripe by outcome.", ["operation", "outcome"]
)
RECEIVED: Final = Counter(
    "metering_stripe_webhooks_total", "Webhooks by what became of them.", ["outcome"]
)
FAILED: Final = Counter(
    "metering_stripe_events_failed_total",
    "Looks at Stripe that failed and are tried again.",
)
DELAY: Final = Histogram(
    "metering_payments_look_delay_seconds",
    "From a stored webhook until what it is about has been looked at and settled.",
    ["provider"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300, 3600),
)
PENDING: Final = Gauge(
    "metering_stripe_events_pending", "Webhooks that are stored and not yet worked off."
)
OLDEST: Final = Gauge(
    "metering_stripe_oldest_pending_seconds", "Age of the oldest webhook that is not worked off."
)
RECONCILED: Final = Gauge(
    "metering_stripe_last_reconciled_timestamp_seconds",
    "When everything that Stripe changed was compared; 0 before the first time.",
)
UNMATCHED: Final = Gauge(
    "metering_payments_unmatched", "Payments and grants that do not fit each other."
)


def observe(session: Session, now: datetime) -> None:
    """Sets the gauges to what the database says."""
    waiting, oldest = session.execute(
        select(func.count(), func.min(ProviderEvent.received_at)).where(
            ProviderEvent.processed_at.is_(None), ProviderEvent.provider == STRIPE
        )
    ).one()
    PENDING.set(waiting)
    OLDEST.set(max(0.0, (now - oldest).total_seconds()) if oldest else 0.0)
    UNMATCHED.set(session.scalar(select(func.count()).select_from(Unmatched)) or 0)
    cursor = session.get(ProviderCursor, STRIPE)
    RECONCILED.set(cursor.reconciled_at.timestamp() if cursor else 0)
