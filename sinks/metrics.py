"""The sink's Prometheus metrics. Durations are seconds."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

INSERT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
DELAY_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 1800, 7200, 86400)

ROWS = Counter("metering_sink_rows", "Rows acknowledged by ClickHouse.", ["table"])
BLOCKS = Counter("metering_sink_blocks", "Blocks acknowledged and committed.")
BYTES = Counter("metering_sink_bytes", "Bytes of rows acknowledged by ClickHouse.")
INSERT_SECONDS = Histogram(
    "metering_sink_insert_seconds",
    "One insert, answer included.",
    ["table"],
    buckets=INSERT_BUCKETS,
)
RETRIES = Counter("metering_sink_retries", "Inserts sent again because they were not acknowledged.")
REJECTED = Counter("metering_sink_rejected_rows", "Rows put into sink_rejects.", ["table"])
EVENT_DELAY = Histogram(
    "metering_sink_event_delay_seconds",
    "From the append of the oldest event of a block to `usage` until it can be queried.",
    buckets=DELAY_BUCKETS,
)
RATED_DELAY = Histogram(
    "metering_sink_rated_delay_seconds",
    "From the append of the oldest row of a block to its topic until it can be queried.",
    buckets=DELAY_BUCKETS,
)
LAG = Gauge("metering_sink_lag_records", "Records not acknowledged yet.", ["topic", "partition"])
LAST_COMMIT = Gauge("metering_sink_last_commit_timestamp_seconds", "When offsets were committed.")
COMMIT_FAILURES = Counter(
    "metering_sink_commit_failures", "Commits refused, mostly in a rebalance; rows are sent again."
)
SKIPPED = Counter(
    "metering_sink_skipped_records", "Records lost to retention and skipped by --from-earliest."
)
DEPENDENCY_UP = Gauge(
    "metering_sink_dependency_up",
    "1 while it answers: kafka, kafka_fetch, kafka_commit, clickhouse.",
    ["dependency"],
)
STAMPS_CHANGED = Gauge(
    "metering_stamps_changed_by_late_facts",
    "Events of the last 35 days that a report as known now shows in another group.",
)
STAMPS_CHECKED = Gauge(
    "metering_stamps_checked_timestamp_seconds", "When stamps were last compared with all facts."
)
