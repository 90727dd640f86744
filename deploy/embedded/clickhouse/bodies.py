"""Request bodies: read and decompressed under a limit, so that no request can fill the memory.

Clients send lz4 and zstd as several frames one after the other, one per block.
"""

import zlib
from collections.abc import Iterator

import lz4.frame
import zstandard
from aiohttp import web

from deploy.embedded.clickhouse.errors import ClickHouseError, refusal

# What one step may expand to is checked only after it, so compressed input goes in small pieces.
PIECE_BYTES = 4_096


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """The body as sent; refused as soon as it is longer than `bytes_max`."""
    declared = request.content_length
    if declared is not None and declared > bytes_max:
        raise _too_long(bytes_max)
    pieces, size = [], 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if size > bytes_max:
            raise _too_long(bytes_max)
        pieces.append(piece)
    return b"".join(pieces)


def decompress(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The plain body; refused when it is torn, or longer than `bytes_max`."""
    match encoding:
        case "" | "identity":
            return body
        case "lz4":
            pieces = _lz4(body, bytes_max)
        case "zstd":
            pieces = _zstd(body)
        case "gzip":
            pieces = _zlib(body, zlib.MAX_WBITS | 16)
        case "deflate":
            pieces = _zlib(body, zlib.MAX_WBITS)
        case _:
            raise refusal(48, f"Unknown Content-Encoding {encoding}.")
    plain, size = [], 0
    try:
        for piece in pieces:
            size += len(piece)
            if size > bytes_max:
                raise _too_long(bytes_max)
            plain.append(piece)
    except (RuntimeError, zlib.error, zstandard.ZstdError) as error:
        raise refusal(271, f"Cannot decompress the {encoding} body: {error}.") from None
    return b"".join(plain)


def _lz4(body: bytes, bytes_max: int) -> Iterator[bytes]:
    while body:
        frame = lz4.frame.LZ4FrameDecompressor()
        yield frame.decompress(body, max_length=bytes_max + 1)
        if not frame.eof:
            raise RuntimeError("a frame is torn or too long")
        body = frame.unused_data or b""


def _zstd(body: bytes) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    position, is_inside = 0, False
    while position < len(body):
        piece = body[position : position + PIECE_BYTES]
        yield frame.decompress(piece)
        position += len(piece)
        is_inside = not frame.eof
        if frame.eof:
            position -= len(frame.unused_data)
            frame = decompressor.decompressobj()
    if is_inside:
        raise RuntimeError("the last frame is torn")


def _zlib(body: bytes, window_bits: int) -> Iterator[bytes]:
    stream = zlib.decompressobj(window_bits)
    for position in range(0, len(body), PIECE_BYTES):
        yield stream.decompress(body[position : position + PIECE_BYTES])
    if not stream.eof:
        raise RuntimeError("the stream is torn")


def _too_long(bytes_max: int) -> ClickHouseError:
    return refusal(307, f"The request body is longer than {bytes_max} bytes.")
