"""How a refused record is written to `dead-letters`: bytes unchanged, reason in added headers."""

from typing import Final

from schemas import headers
from schemas.reasons import Reason
from schemas.topics import DEAD_LETTERS
from streams.exactly_once import Record, Transaction

PART_BYTES: Final = 8 << 20
"""A compressed message may unpack to more than the topic takes; it is then kept in parts."""


def dead_letter(
    transaction: Transaction, topic: str, record: Record, reason: Reason, detail: str
) -> None:
    """Writes the record, and counts it under its reason. `topic` is unprefixed."""
    added = {
        headers.REASON: reason.value,
        headers.DETAIL: detail,
        headers.TOPIC: topic,
        headers.PARTITION: str(transaction.partition),
        headers.OFFSET: str(record.offset),
        headers.APPEND_TIME_MS: str(record.timestamp),
    }
    value = record.value
    parts = -(-len(value) // PART_BYTES) if value else 1
    for number in range(parts):
        part = value
        if value is not None and parts > 1:
            added[headers.PART] = f"{number + 1}/{parts}"
            part = value[number * PART_BYTES : (number + 1) * PART_BYTES]
        transaction.emit(
            DEAD_LETTERS,
            record.key,
            part,
            [*record.headers, *((name, text.encode()) for name, text in added.items())],
        )
    transaction.count(f"dead:{reason.value}")
