"""What one transaction will write: records by topic and partition, state, seen ids.

A decision fills it synchronously; the lane sends it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from aiokafka.producer.message_accumulator import BatchBuilder

from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.state import PartitionState

BATCH_BYTES: Final = 4 << 20
"""Records of one produce batch before compression; a larger single record has its own batch."""

Headers = Sequence[tuple[str, bytes]]
RECORD_OVERHEAD_BYTES: Final = 512


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
        self._open: dict[tuple[str, int], BatchBuilder] = {}
        self.batches: list[tuple[str, int, BatchBuilder]] = []
        self.records = 0

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """Adds a record to `topic` (unprefixed)."""
        at = (topic, self.partition if partition is None else partition)
        builder = self._open.get(at)
        if builder is None:
            builder = self._builder(at, key, value, headers)
        if not self._append(builder, key, value, headers):
            builder = self._builder(at, key, value, headers)
            if not self._append(builder, key, value, headers):
                raise ValueError(f"a record of {len(value or b'')} bytes fits no batch")
        self.records += 1

    def seen_before(self, identities: Sequence[bytes]) -> list[int]:
        """The content each identity was seen with in earlier transactions, 0 for none."""
        return self._store.seen.lookup(identities)

    def scan(self, start: bytes, before: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Committed state by encoded key, in order; nothing of this transaction."""
        return self._store.scan(start, before)

    def count(self, name: str, by: int = 1) -> None:
        """Adds to a count that is published after the commit."""
        self.metrics[name] = self.metrics.get(name, 0) + by

    def _append(
        self, builder: BatchBuilder, key: bytes | None, value: bytes | None, headers: Headers
    ) -> bool:
        appended: Any = builder.append(
            timestamp=self._now_ms, key=key, value=value, headers=list(headers)
        )
        return appended is not None

    def _builder(
        self, at: tuple[str, int], key: bytes | None, value: bytes | None, headers: Headers
    ) -> BatchBuilder:
        size = len(key or b"") + len(value or b"") + RECORD_OVERHEAD_BYTES
        size += sum(len(name) * 4 + len(text or b"") + 16 for name, text in headers)
        builder = BatchBuilder(max(BATCH_BYTES, size), self._compression_type, is_transactional=1)
        self._open[at] = builder
        self.batches.append((*at, builder))
        return builder

    @property
    def _compression_type(self) -> int:
        return {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}[self._compression]
