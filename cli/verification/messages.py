"""One record to send, and what a record that must be refused is to be refused for."""

from typing import NamedTuple

from schemas.reasons import Reason


class Message(NamedTuple):
    """`partition` is None where the key decides, as for any product."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


Expected = dict[bytes, Reason]
"""Values (unique bytes) that are wrong in themselves, with the reason they were made for."""
