"""The runtime's configuration, and the figures that it reports of each commit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from streams.exactly_once.state import Codec
from streams.exactly_once.transaction import Transaction

DAY_S: Final = 86_400


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Names are unprefixed topics; durations are in the unit of their name."""

    app_id: str
    client_options: Mapping[str, Any]
    """For every aiokafka client: where the brokers are and how to authenticate."""
    directory: Path
    """Local stores, one directory a partition; belongs to one worker alone."""
    input_order: tuple[str, ...]
    """Input topics; a batch is decided after all that the topics before its own held when it
    was fetched. The last is the main input."""
    state_topic: str
    seen_topic: str
    changelogs: tuple[str, ...]
    """All changelogs, `state_topic` and `seen_topic` among them."""
    codec: Codec
    batch_bytes_max: Mapping[str, int] = field(default_factory=dict)
    """What the broker takes in one record batch (`max.message.bytes`), by topic written to."""
    topic_prefix: str = ""
    compression: str | None = "snappy"
    batch_max_records: int = 20_000
    """A transaction takes whole record batches of producers until it has so many records."""
    transaction_timeout_s: float = 15.0
    seen_window_ms: int = 50 * DAY_S * 1000
    store_max_age_s: float = DAY_S / 2
    """Half of the changelogs' `delete.retention.ms` (a day by default)."""
    on_tick: Callable[[Transaction, datetime], bool] | None = None
    """Called with the time at which the clock struck, after all that was in the topics then; again,
    for a transaction of its own, while it returns True."""
    tick_interval_s: float = 60.0
    clock: Callable[[], datetime] = _now

    def topic(self, name: str) -> str:
        return self.topic_prefix + name

    def unprefixed(self, topic: str) -> str:
        return topic[len(self.topic_prefix) :]


@dataclass(frozen=True, slots=True)
class Committed:
    """What `on_commit` is told about one transaction."""

    partition: int
    topic: str
    """The input topic; empty for the clock's."""
    inputs: int
    decide_s: float
    commit_s: float
    counts: Mapping[str, int]
