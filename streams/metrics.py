"""The worker's Prometheus metrics, and what its health answers are made of.

Counts move only after the transaction that they tell of has committed.
"""

import time
from collections.abc import Mapping
from typing import Final

import structlog
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from schemas.reasons import Reason
from streams.exactly_once import Committed
from streams.exactly_once.lanes import Lane
from streams.outage import Outage

log = structlog.get_logger()

SECONDS_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
BATCH_BUCKETS: Final = (1, 10, 100, 500, 1000, 2000, 4000, 8000, 16000, 32000)

disable_created_metrics()  # type: ignore[no-untyped-call]

EVENTS = Counter("metering_events", "Usage records read from `usage`.")
RATED = Counter("metering_rated_events", "Usage events rated and charged.")
DUPLICATES = Counter("metering_duplicate_events", "Usage events seen before, not charged again.")
MISROUTED = Counter("metering_misrouted_events", "Events forwarded to their own partition.")
UNKNOWN_MEMBERS = Counter(
    "metering_unknown_member_events", "Events metered under Unassigned: the member is unknown."
)
DEAD_LETTERS = Counter("metering_dead_letters", "Records refused, by reason.", ["reason"])
INTERNAL_ERRORS = Counter(
    "metering_internal_errors", "Decisions that failed by a bug: of records, and of the clock."
)
FACTS = Counter("metering_facts_applied", "Facts applied, by topic.", ["topic"])
LATE_FACTS = Counter(
    "metering_late_facts", "Facts applied that took effect before they were recorded.", ["topic"]
)
FORFEITED = Counter("metering_forfeited_microcredits", "Micro-credits forfeited after expiry.")
DEBITED = Counter("metering_debited_microcredits", "Micro-credits debited, by pool.", ["pool"])
OVERAGE = Counter("metering_overage_microcredits", "Micro-credits that no pool covered.")
BATCH_SIZE = Histogram(
    "metering_batch_size_events", "Usage records a transaction.", buckets=BATCH_BUCKETS
)
DECIDE_SECONDS = Histogram("metering_decide_seconds", "Deciding a batch.", buckets=SECONDS_BUCKETS)
TRANSACTION_SECONDS = Histogram(
    "metering_transaction_seconds", "Sending and committing a batch.", buckets=SECONDS_BUCKETS
)
LAG = Gauge("metering_lag_records", "Records not committed yet.", ["topic", "partition"])
OLDEST_SECONDS = Gauge(
    "metering_oldest_uncommitted_age_seconds", "Age of the oldest usage event not committed."
)
RECOVERY_SECONDS = Gauge("metering_recovery_seconds", "The last recovery took.", ["partition"])
RECOVERED = Gauge("metering_recovered_records", "Records the last recovery read.", ["partition"])
DEPENDENCY_UP = Gauge(
    "metering_worker_dependency_up", "1 while it answers the worker: kafka.", ["dependency"]
)
LAST_COMMIT = Gauge("metering_last_commit_timestamp_seconds", "When the last commit was.")

STUCK_S: Final = 120.0
"""Not alive when usage waits and nothing was committed for so long."""

for _reason in Reason:
    DEAD_LETTERS.labels(_reason.value)
for _pool in ("website", "group"):
    DEBITED.labels(_pool)

_PLAIN: Final = {
    "rated": RATED,
    "duplicates": DUPLICATES,
    "misrouted": MISROUTED,
    "unknown_members": UNKNOWN_MEMBERS,
    "overage": OVERAGE,
    "forfeited": FORFEITED,
    "internal_errors": INTERNAL_ERRORS,
}


class WorkerHealth:
    """Knows the lanes, when something was committed last, and how far behind the worker is."""

    def __init__(self) -> None:
        self.kafka = Outage("kafka", DEPENDENCY_UP.labels("kafka").set)
        self._lanes: Mapping[int, Lane] = {}
        self._is_assigned = False
        self._lag = 0
        self._last_progress_s = time.monotonic()
        LAST_COMMIT.set(0)

    def lanes_changed(self, lanes: Mapping[int, Lane], is_assigned: bool) -> None:
        """`is_assigned` says that the group has decided which lanes are ours, be it none."""
        self._is_assigned = is_assigned
        self._lanes = lanes
        self._lag = 0
        self._last_progress_s = time.monotonic()
        if not is_assigned:
            # From now on the partition's next owner reports these gauges.
            for gauge in (LAG, RECOVERY_SECONDS, RECOVERED):
                gauge.clear()
            OLDEST_SECONDS.set(0)

    def recovered(self, partition: int, records: int, seconds: float) -> None:
        RECOVERY_SECONDS.labels(str(partition)).set(seconds)
        RECOVERED.labels(str(partition)).set(records)
        log.info(
            "partition recovered", partition=partition, records=records, seconds=round(seconds, 3)
        )
        self.progress()

    def progress(self) -> None:
        """Something moved: a commit, or a recovery."""
        self._last_progress_s = time.monotonic()

    def committed(self, commit: Committed) -> None:
        """Publishes the counts of a committed transaction."""
        self.progress()
        LAST_COMMIT.set(time.time())
        if commit.topic == "usage":
            EVENTS.inc(commit.inputs)
            BATCH_SIZE.observe(commit.inputs)
            DECIDE_SECONDS.observe(commit.decide_s)
            TRANSACTION_SECONDS.observe(commit.commit_s)
        for name, count in commit.counts.items():
            _publish(name, count)

    def observe_lag(self, lags: Mapping[tuple[str, int], int], oldest_age_s: float) -> None:
        """Called every few seconds with all input partitions of this worker."""
        for (topic, partition), lag in lags.items():
            LAG.labels(topic, str(partition)).set(lag)
        OLDEST_SECONDS.set(oldest_age_s)
        self._lag = sum(lags.values())
        if self._lag == 0:
            self.progress()

    def ready(self) -> str:
        """Empty when ready, else why not. A worker that is left without partitions is ready."""
        if self.kafka.problem:
            return self.kafka.problem
        if not self._is_assigned:
            return "the consumer group has assigned no partitions yet"
        recovering = [lane.partition for lane in self._lanes.values() if not lane.running]
        return f"recovering partitions {recovering}" if recovering else ""

    def alive(self) -> str:
        """Empty when alive, else why not. Waiting for a broker that is down is being alive."""
        if self.kafka.problem:
            return ""
        idle_s = time.monotonic() - self._last_progress_s
        if self._lag and idle_s > STUCK_S:
            return f"{self._lag} records wait and nothing was committed for {idle_s:.0f} s"
        return ""


def _publish(name: str, count: int) -> None:
    plain = _PLAIN.get(name)
    if plain is not None:
        plain.inc(count)
        return
    family, _, label = name.partition(":")
    labelled = {
        "dead": DEAD_LETTERS,
        "debited": DEBITED,
        "facts": FACTS,
        "late_facts": LATE_FACTS,
    }[family]
    labelled.labels(label).inc(count)
