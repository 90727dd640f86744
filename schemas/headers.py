"""Names of record headers that are part of the contract.

A dead letter carries the original's headers, then the `DEAD_LETTER_HEADERS`, then perhaps
`PACKED` and `PART`; where a name stands twice, the last is ours. A replay takes them off again. An
original's header may have any name; one that is no UTF-8 reads with surrogate escapes.
"""

from collections.abc import Sequence
from typing import Final

REASON: Final = "reason"
DETAIL: Final = "detail"
TOPIC: Final = "topic"
PARTITION: Final = "partition"
OFFSET: Final = "offset"
APPEND_TIME_MS: Final = "append-time-ms"

DEAD_LETTER_HEADERS: Final = (REASON, DETAIL, TOPIC, PARTITION, OFFSET, APPEND_TIME_MS)

PACKED: Final = "packed"
"""`record-batch` where the value is a record batch as Kafka keeps it (version 2), with all that is
in it: of records that could not be unpacked, or of one with too much beside its value."""

PART: Final = "part"
"""`2/3` on a value that was too large for one record: the values in order are the original."""

FORWARDED: Final = "metering-forwarded"
"""On a usage event that the worker sent on to its organization's partition; it does so once."""


def take_apart(
    pairs: Sequence[tuple[str, bytes | None]],
) -> tuple[list[tuple[str, bytes | None]], dict[str, bytes]]:
    """Of a dead letter: the original's headers, and those that the worker added."""
    names = [name for name, _ in pairs]
    begin = len(names) - 1 - names[::-1].index(REASON) if REASON in names else len(names)
    return list(pairs[:begin]), {name: value or b"" for name, value in pairs[begin:]}
