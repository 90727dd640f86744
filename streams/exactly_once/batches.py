"""What travels through Faust: one message that carries the records of one partition's fetch."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from faust.serializers.codecs import Codec, register

from streams.wire.record_batch import ReadableBatch, Record, Unreadable

PASS_THROUGH = "metering-pass-through"  # noqa: S105 - a codec's name


class _PassThrough(Codec):  # type: ignore[misc]
    """Faust's serializer for envelopes: the value is a `Batch` already."""

    def loads(self, s: Any) -> Any:
        return s

    def dumps(self, s: Any) -> Any:
        return s


register(PASS_THROUGH, _PassThrough())


class Packed:
    """Records as their producers batched them, unpacked while they are iterated over, once: what
    is unpacked long before it is decided is cold by then, which cost a tenth of the CPU time."""

    def __init__(self, batches: Iterable[ReadableBatch], start: int) -> None:
        """Records before `start` are left out."""
        self._batches = deque(batches)
        self._start = start
        self.count = sum(
            batch.next_offset - max(batch.base_offset, start) for batch in self._batches
        )
        """How many there are; more than that where a topic is compacted."""

    @property
    def oldest_ms(self) -> int:
        """Append time of the first of them, 0 where there are none."""
        return int(self._batches[0].max_timestamp) if self._batches else 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    def __iter__(self) -> Iterator[Record]:
        return chain.from_iterable(self._next_batches())

    def _next_batches(self) -> Iterator[Iterable[Record]]:
        start = self._start
        while self._batches:
            batch = self._batches.popleft()
            if batch.base_offset >= start:
                yield batch
            else:
                # An `Unreadable` stands for all that follow it.
                yield (
                    record
                    for record in batch
                    if record.offset >= start or isinstance(record, Unreadable)
                )


@dataclass(slots=True, eq=False)
class Batch:
    """The records of one fetch from one partition, with where it began and ended."""

    topic: str
    """Unprefixed name."""
    partition: int
    records: Packed
    """To be iterated over once."""
    start: int
    """The position at which the fetch started; the lane's next position, or events were lost."""
    end: int
    """The position after the fetch; beyond the last record where markers follow it."""
    lane_number: int
    """Of the lane that it was fetched for."""
    required: dict[str, int] = field(default_factory=dict)
    """Positions of other input topics that must be applied before this batch is decided."""
