"""ClickHouse's own compressed blocks: what `compress=1` asks of an answer.

A block is a checksum (CityHash128 of all that follows), the method, both sizes, and the content.
"""

import struct
from collections.abc import Iterator
from typing import Final

import lz4.block

LZ4_METHOD: Final = 0x82
# Method, compressed size with this head, plain size.
HEAD: Final = struct.Struct("<BII")
CHECKSUM: Final = struct.Struct("<QQ")
PLAIN_BYTES_MAX: Final = 1024 * 1024


def compressed(plain: bytes) -> bytes:
    """`plain` in as many blocks as it needs; nothing for nothing."""
    return b"".join(_blocks(plain))


def _blocks(plain: bytes) -> Iterator[bytes]:
    for start in range(0, len(plain), PLAIN_BYTES_MAX):
        piece = plain[start : start + PLAIN_BYTES_MAX]
        content = lz4.block.compress(piece, store_size=False)
        block = HEAD.pack(LZ4_METHOD, HEAD.size + len(content), len(piece)) + content
        yield _checksum(block)
        yield block


def _checksum(block: bytes) -> bytes:
    """The first half comes first; the library returns both as one number that begins with it."""
    # Loaded when a client asks for it; the sink and the reports never do.
    from clickhouse_cityhash.cityhash import CityHash128

    return CHECKSUM.pack(*divmod(CityHash128(block), 1 << 64))
