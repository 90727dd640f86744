"""What one transaction will write: records by topic and partition, state, seen ids.

A decision fills it synchronously; the lane sends it.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from aiokafka.producer.message_accumulator import BatchBuilder

from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.state import PartitionState

BATCH_BYTES: Final = 4 << 20
"""Records of one produce batch before compression; a larger single record has its own batch."""

Headers = list[tuple[str, bytes | None]]
NO_HEADERS: Final[Headers] = []
RECORD_OVERHEAD_BYTES: Final = 512


COMPRESSION_TYPES: Final = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


class RecordBatch(BatchBuilder):  # type: ignore[misc]
    """aiokafka's builder, with an `add` that costs a third of its `append`."""

    _relative_offset: int

    def __init__(self, size_bytes: int, compression: str | None, now_ms: int) -> None:
        super().__init__(size_bytes, COMPRESSION_TYPES[compression], is_transactional=1)
        self._now_ms = now_ms

    def add(self, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Whether there was room."""
        offset: int = self._relative_offset
        if self._builder.append(offset, self._now_ms, key, value, headers) is None:
            return False
        self._relative_offset = offset + 1
        return True


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
    ) -> None:
        self.partition = partition
        self.state = state
        self.now = now
        self._store = store
        self.seen: dict[bytes, int] = {}
        """Identities and contents to remember."""
        self.metrics: dict[str, int] = {}
        """Counts that become visible only if the transaction commits."""
        self._compression = compression
        self._now_ms = int(now.timestamp() * 1000)
        self._open: dict[tuple[str, int], RecordBatch] = {}
        self.batches: list[tuple[str, int, RecordBatch]] = []
        """Topic, partition and records, in the order they are to be sent."""

    @property
    def records(self) -> int:
        """How many records it will write so far."""
        return sum(batch.record_count() for _, _, batch in self.batches)

    def appender(self, topic: str) -> Callable[[bytes | None, bytes], None]:
        """A quicker `emit`, for the many records of one topic that have no headers."""
        at = (topic, self.partition)
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
        at = (topic, self.partition if partition is None else partition)
        batch = self._open.get(at)
        if batch is None or not batch.add(key, value, headers):
            size = len(key or b"") + len(value or b"") + RECORD_OVERHEAD_BYTES
            size += sum(len(name) * 4 + len(text or b"") + 16 for name, text in headers)
            batch = RecordBatch(max(BATCH_BYTES, size), self._compression, self._now_ms)
            self._open[at] = batch
            self.batches.append((*at, batch))
            if not batch.add(key, value, headers):
                raise ValueError(f"a record of {size} bytes fits no batch")

    def seen_before(self, identities: Sequence[bytes]) -> list[int]:
        """The content each identity was seen with in earlier transactions, 0 for none."""
        return self._store.seen.lookup(identities)

    def scan(self, start: bytes, before: bytes) -> list[tuple[bytes, bytes]]:
        """Committed state by encoded key, in order; nothing of this transaction."""
        return self._store.scan(start, before)

    def count(self, name: str, by: int = 1) -> None:
        """Adds to a count that is published after the commit."""
        self.metrics[name] = self.metrics.get(name, 0) + by
