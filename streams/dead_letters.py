"""How a refused record is written to `dead-letters`: bytes unchanged, reason in added headers."""

from typing import Final

from schemas import headers
from schemas.reasons import Reason
from schemas.topics import DEAD_LETTERS
from streams.exactly_once import Record, Transaction
from streams.wire.record_batch import Headers, RecordBatch, Unreadable, size_of

PART_BYTES: Final = 8 << 20
"""A compressed message may unpack to more than the topic takes; it is then kept in parts."""
BESIDE_BYTES: Final = 4 << 20
"""The most that key and headers take of a letter; a record with more is packed, and so cut, too."""
PACKED: Final = "record-batch"


def dead_letter(
    transaction: Transaction, topic: str, record: Record, reason: Reason, detail: str
) -> None:
    """Writes the record, and counts it under its reason. `topic` is unprefixed."""
    key, value, original_headers = record.key, record.value, list(record.headers)
    is_packed = isinstance(record, Unreadable)
    if isinstance(record, Unreadable):
        reason = Reason.TOO_LARGE if record.is_too_large else Reason.NOT_JSON
        detail = record.why
    elif size_of(key, b"", original_headers) > BESIDE_BYTES:
        key, value, original_headers, is_packed = None, _packed(record, original_headers), [], True
    added = {
        headers.REASON: reason.value,
        headers.DETAIL: detail,
        headers.TOPIC: topic,
        headers.PARTITION: str(transaction.partition),
        headers.OFFSET: str(record.offset),
        headers.APPEND_TIME_MS: str(record.timestamp),
    }
    if is_packed:
        added[headers.PACKED] = PACKED
    parts = -(-len(value) // PART_BYTES) if value else 1
    for number in range(parts):
        part = value
        if value is not None and parts > 1:
            added[headers.PART] = f"{number + 1}/{parts}"
            part = value[number * PART_BYTES : (number + 1) * PART_BYTES]
        transaction.emit(
            DEAD_LETTERS,
            key,
            part,
            [*original_headers, *((name, text.encode()) for name, text in added.items())],
        )
    transaction.count(f"dead:{reason.value}")


def _packed(record: Record, original_headers: Headers) -> bytes:
    batch = RecordBatch(1, None, record.timestamp, takes_any_name=True, is_transactional=False)
    batch.add(record.key, record.value, original_headers)
    return batch.packed()
