"""The outbox's Prometheus metrics; one set a process.

The numbers of waiting facts and halted organizations are read from the database at each scrape. So
every process reports them, and they are true even while the publisher cannot reach the broker.
"""

from datetime import datetime, timedelta
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.storage.ledgers import (
    UNKNOWN_ORGANIZATION,
    ApiKey,
    DimensionChange,
    OutboxFact,
    PublishingHalt,
)

DELAY: Final = Histogram(
    "metering_outbox_delay_seconds",
    "From the commit of a change to the broker's acknowledgement of its fact.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300),
)
PUBLISHED: Final = Counter("metering_outbox_published_total", "Facts published.", ["topic"])
FAILURES: Final = Counter(
    "metering_outbox_failures_total", "Attempts that failed and are repeated.", ["target"]
)
FOREIGN: Final = Counter(
    "metering_outbox_foreign_records_total", "Records in a topic that this database did not write."
)
WAITING: Final = Gauge("metering_outbox_waiting", "Facts that wait to be published.")
OLDEST: Final = Gauge(
    "metering_outbox_oldest_waiting_seconds", "Age of the oldest fact that is not published."
)
NAMES_WAITING: Final = Gauge("metering_names_waiting", "Names that wait for ClickHouse.")
HALTED: Final = Gauge(
    "metering_outbox_halted", "Organizations of which nothing may be published or changed."
)
UNKNOWN: Final = Gauge(
    "metering_outbox_unknown_organizations",
    "Organizations that have facts in a topic and are not in the database.",
)
EXPIRING: Final = Gauge(
    "metering_api_keys_expiring", "Live API keys that expire within thirty days."
)
EXPIRING_WITHIN: Final = timedelta(days=30)


def observe(session: Session, now: datetime) -> None:
    """Sets the gauges to what the database says."""
    waiting, oldest = session.execute(
        select(func.count(), func.min(OutboxFact.created_at)).where(
            OutboxFact.published_at.is_(None)
        )
    ).one()
    WAITING.set(waiting)
    OLDEST.set(max(0.0, (now - oldest).total_seconds()) if oldest else 0.0)
    NAMES_WAITING.set(session.scalar(select(func.count()).select_from(DimensionChange)) or 0)
    halted = func.count(PublishingHalt.organization_id.distinct())
    is_unknown = PublishingHalt.code == UNKNOWN_ORGANIZATION
    HALTED.set(session.scalar(select(halted).where(~is_unknown)) or 0)
    UNKNOWN.set(session.scalar(select(halted).where(is_unknown)) or 0)
    expiring = select(func.count()).where(
        ApiKey.revoked_at.is_(None),
        ApiKey.expires_at > now,
        ApiKey.expires_at <= now + EXPIRING_WITHIN,
    )
    EXPIRING.set(session.scalar(expiring) or 0)
