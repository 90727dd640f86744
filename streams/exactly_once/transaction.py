"""What one transaction will write: records by topic and partition, state, seen ids.

A decision fills it synchronously; the lane sends it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.state import PartitionState
from streams.wire.record_batch import Headers, RecordBatch, is_text

BATCH_BYTES: Final = 4 << 20
"""Of one produce batch before compression, where its topic takes so many; a larger single record
has its own batch."""

NO_HEADERS: Final[Headers] = []


class Transaction:
    """Outputs of one decision function. `partition` is written everywhere unless said otherwise,
    since all topics are partitioned alike."""

    def __init__(
        self,
        partition: int,
        state: PartitionState,
        store: LocalStore,
        now: datetime,
        compression: str | None,
        batch_bytes_max: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """`batch_bytes_max` is what the broker takes in one batch, by unprefixed topic."""
        self.partition = partition
        self.state = state
        self.now = now
        self._store = store
        self.seen: dict[bytes, int] = {}
        """Identities and contents to remember."""
        self.metrics: dict[str, int] = {}
        """Counts that become visible only if the transaction commits."""
        self._compression = compression
        self._batch_bytes_max = batch_bytes_max
        self._now_ms = int(now.timestamp() * 1000)
        self._open: dict[tuple[str, int, bool], RecordBatch] = {}
        self.batches: list[tuple[str, int, RecordBatch]] = []
        """Topic, partition and records, in the order they are to be sent."""

    @property
    def records(self) -> int:
        """How many records it will write so far."""
        return sum(batch.record_count() for _, _, batch in self.batches)

    def appender(self, topic: str) -> Callable[[bytes | None, bytes], None]:
        """A quicker `emit`, for the many records of one topic that have no headers."""
        at = (topic, self.partition, True)
        batch: RecordBatch | None = None

        def append(key: bytes | None, value: bytes) -> None:
            nonlocal batch
            if batch is None or not batch.add(key, value, NO_HEADERS):
                self.emit(topic, key, value)
                batch = self._open.get(at)

        return append

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = NO_HEADERS,
        partition: int | None = None,
    ) -> None:
        """Adds a record to `topic` (unprefixed)."""
        where = self.partition if partition is None else partition
        is_plain = not headers or is_text(headers)
        batch = self._open.get((topic, where, is_plain))
        if batch is None or not batch.add(key, value, headers):
            # Not compressed yet: so much of it fits whatever compression finds.
            size = min(BATCH_BYTES, self._batch_bytes_max.get(topic, BATCH_BYTES))
            batch = RecordBatch(size, self._compression, self._now_ms, takes_any_name=not is_plain)
            self._open[topic, where, is_plain] = batch
            self.batches.append((topic, where, batch))
            batch.add(key, value, headers)

    def seen_before(self, identities: Sequence[bytes]) -> list[int]:
        """The content each identity was seen with in earlier transactions, 0 for none."""
        return self._store.seen.lookup(identities)

    def scan(self, start: bytes, before: bytes) -> list[tuple[bytes, bytes]]:
        """Committed state by encoded key, in order; nothing of this transaction."""
        return self._store.scan(start, before)

    def count(self, name: str, by: int = 1) -> None:
        """Adds to a count that is published after the commit."""
        self.metrics[name] = self.metrics.get(name, 0) + by
