"""Names of record headers that are part of the contract.

A dead letter carries the original's headers, then the `DEAD_LETTER_HEADERS`; where a name stands
twice, the last is ours. A replay takes them off again.
"""

from typing import Final

REASON: Final = "reason"
DETAIL: Final = "detail"
TOPIC: Final = "topic"
PARTITION: Final = "partition"
OFFSET: Final = "offset"
APPEND_TIME_MS: Final = "append-time-ms"

DEAD_LETTER_HEADERS: Final = (REASON, DETAIL, TOPIC, PARTITION, OFFSET, APPEND_TIME_MS)

PART: Final = "part"
"""`2/3` on a value that was too large for one record: the values in order are the original."""

FORWARDED: Final = "metering-forwarded"
"""On a usage event that the worker sent on to its organization's partition; it does so once."""
