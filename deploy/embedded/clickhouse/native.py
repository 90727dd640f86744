"""The one piece of the Native format that the front writes itself: a block without rows.

A server answers an empty SELECT with its columns' names and types; the engine in process answers
with nothing, and a client would then believe that the result has no columns.
"""

from collections.abc import Sequence


def empty_block(columns: Sequence[tuple[str, str]]) -> bytes:
    parts = [_varint(len(columns)), _varint(0)]
    for name, column_type in columns:
        parts += [_string(name), _string(column_type)]
    return b"".join(parts)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _varint(len(encoded)) + encoded


def _varint(number: int) -> bytes:
    """Little-endian groups of 7 bits, the top bit set on all but the last."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
