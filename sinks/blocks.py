"""Records gathered into blocks, bounded in rows, bytes and age. Pure: no I/O, time is an argument.

A block holds whole records of one assignment (`generation`): after a rebalance it is dropped,
because the partitions may be somebody else's.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Protocol

from streams.wire.record_batch import Record

BLOCK_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of values; one record that is larger makes a block of its own."""


class StoredRecord(Record, Protocol):
    """A committed record of one of our topics, as aiokafka's ConsumerRecord is one."""

    @property
    def topic(self) -> str:
        """Its name on the broker."""

    @property
    def partition(self) -> int: ...


@dataclass(slots=True)
class Block:
    """Records by topic (its name on the broker), and the position after them by partition."""

    generation: int
    records: dict[str, list[StoredRecord]] = field(default_factory=dict)
    positions: dict[Any, int] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0


class BlockBuilder:
    """The block that is being filled."""

    def __init__(self, rows_max: int, wait_s_max: float, bytes_max: int = BLOCK_BYTES_MAX) -> None:
        self._rows_max = rows_max
        self._wait_s_max = wait_s_max
        self._bytes_max = bytes_max
        self._block = Block(0)
        self._begun_s = 0.0
        self._is_closed = False

    @property
    def room_rows(self) -> int:
        return self._rows_max - self._block.rows

    @property
    def is_full(self) -> bool:
        return self._is_closed or self._block.rows >= self._rows_max

    def wait_s(self, now_s: float) -> float:
        """How long more records may be waited for; 0 when the block is due."""
        if not self._block.rows:
            return self._wait_s_max
        return max(0.0, self._begun_s + self._wait_s_max - now_s)

    def is_due(self, now_s: float) -> bool:
        return bool(self._block.rows) and (self.is_full or self.wait_s(now_s) == 0)

    def add(
        self, partition: Any, records: list[StoredRecord], generation: int, now_s: float
    ) -> int:
        """Take records of one partition from the front, as many as fit; returns how many.

        None may fit, and the block is full then. Records of a new generation drop those of an old
        one.
        """
        if generation != self._block.generation:
            self._block, self._is_closed = Block(generation), False
        if self.is_full or not records:
            return 0
        block = self._block
        taken = records[: self.room_rows]
        sizes = list(accumulate(len(record.value or b"") for record in taken))
        fitting = bisect_right(sizes, self._bytes_max - block.bytes)
        self._is_closed = fitting < len(taken)
        taken = taken[: fitting if block.rows else max(1, fitting)]
        if not taken:
            return 0
        if not block.rows:
            self._begun_s = now_s
        block.records.setdefault(partition.topic, []).extend(taken)
        block.positions[partition] = taken[-1].offset + 1
        block.rows += len(taken)
        block.bytes += sizes[len(taken) - 1]
        return len(taken)

    def finish(self) -> Block:
        """The block as it is; the next record begins a new one."""
        finished, self._block = self._block, Block(self._block.generation)
        self._is_closed = False
        return finished
