"""What travels through Faust: one message that carries the records of one partition's fetch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from faust.serializers.codecs import Codec, register

PASS_THROUGH = "metering-pass-through"  # noqa: S105 - a codec's name


class _PassThrough(Codec):  # type: ignore[misc]
    """Faust's serializer for envelopes: the value is a `Batch` already."""

    def loads(self, s: Any) -> Any:
        return s

    def dumps(self, s: Any) -> Any:
        return s


register(PASS_THROUGH, _PassThrough())


@dataclass(slots=True, eq=False)
class Batch:
    """The records of one fetch from one partition, with where it began and ended."""

    topic: str
    """Unprefixed name."""
    partition: int
    records: Sequence[Any]
    """Each has `offset`, `timestamp` (ms), `key`, `value` and `headers`; topic and partition are
    the batch's."""
    start: int
    """The position at which the fetch started; the lane's next position, or events were lost."""
    end: int
    """The position after the fetch; beyond the last record where markers follow it."""
    lane_number: int
    """Of the lane that it was fetched for."""
    required: dict[str, int] = field(default_factory=dict)
    """Positions of other input topics that must be applied before this batch is decided."""
