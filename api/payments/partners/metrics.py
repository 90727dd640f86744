"""Prometheus metrics about partners; one set a process. No label comes from what anybody sent."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter(
    "metering_partner_requests_total",
    "Requests to a partner by operation and outcome: ok, refused, unclear.",
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
WAITING: Final = Gauge(
    "metering_partner_purchases_unclear",
    "Purchases of which no answer of the partner is known yet.",
)
OLDEST_WAITING: Final = Gauge(
    "metering_partner_oldest_unclear_seconds",
    "Age of the oldest purchase of which no answer of the partner is known.",
)
RECONCILED: Final = Gauge(
    "metering_partner_last_reconciled_timestamp_seconds",
    "When everything that changed at the partner was compared last.",
    ["partner"],
)
