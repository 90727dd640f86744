"""What the outbox measures, for Prometheus; one set a process."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

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
NAMES_WAITING: Final = Gauge("metering_names_waiting", "Names that wait for ClickHouse.")
HALTED: Final = Gauge("metering_outbox_halted", "1 while nothing may be published.")
