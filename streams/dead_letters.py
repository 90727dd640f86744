"""How a refused record is written to `dead-letters`: bytes unchanged, reason in added headers."""

from typing import Any

from schemas import headers
from schemas.reasons import Reason
from schemas.topics import DEAD_LETTERS
from streams.exactly_once import Transaction


def dead_letter(
    transaction: Transaction, topic: str, record: Any, reason: Reason, detail: str
) -> None:
    """Writes the record, and counts it under its reason. `topic` is unprefixed."""
    added = (
        (headers.REASON, reason.value),
        (headers.DETAIL, detail),
        (headers.TOPIC, topic),
        (headers.PARTITION, str(record.partition)),
        (headers.OFFSET, str(record.offset)),
        (headers.APPEND_TIME_MS, str(record.timestamp)),
    )
    transaction.emit(
        DEAD_LETTERS,
        record.key,
        record.value,
        [*record.headers, *((name, text.encode()) for name, text in added)],
    )
    transaction.count(f"dead:{reason.value}")
