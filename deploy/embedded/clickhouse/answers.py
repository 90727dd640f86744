"""A statement's result on its way to the client: whole, or block by block.

The encoding of the bytes (`compress`, `client_protocol_version`) is the client's choice.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from deploy.embedded.clickhouse.compressed import compressed
from deploy.embedded.clickhouse.engine import ChunkStream, Engine, Session
from deploy.embedded.clickhouse.errors import ClickHouseError
from deploy.embedded.clickhouse.lanes import Lane
from deploy.embedded.clickhouse.native import empty_block, for_revision
from deploy.embedded.clickhouse.statements import Query

# Formats that stay whole when their blocks are sent one after the other.
STREAMED_FORMATS: Final = frozenset(
    {"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"}
)

NAMES_CHARACTERS_MAX: Final = 4_000


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the bytes of an answer are to travel."""

    revision: int
    """What the client reads of Native; 0 where it does not say, and for other formats."""
    is_compressed: bool

    def apply(self, content: bytes, *, is_one_block: bool = False) -> bytes:
        """`content` is one or more whole blocks, where the format has blocks."""
        versioned = for_revision(content, self.revision, is_one_block=is_one_block)
        return compressed(versioned) if self.is_compressed else versioned


@dataclass(frozen=True, slots=True)
class Question:
    """A statement that was let through, and how it is to be answered."""

    engine: Engine
    session: Session
    query: Query
    format: str
    encoding: Encoding
    lane: Lane

    @property
    def is_streamed(self) -> bool:
        """Whether the result can be sent while it is computed.

        A block of JSON lines repeats the columns' names 65,000 times before it can be sent, so a
        statement with long ones is answered in one piece, which is limited.
        """
        has_long_names = self.format == "JSONEachRow" and len(self.query.sql) > NAMES_CHARACTERS_MAX
        is_limited = self.session.is_reader and has_long_names
        return self.query.is_select and self.format in STREAMED_FORMATS and not is_limited

    async def empty_result(self) -> bytes:
        """A Native result without rows; the engine writes nothing at all for it."""
        columns = await self.lane.in_thread(lambda: self.engine.columns(self.session, self.query))
        return empty_block(columns)

    async def encoded(self, content: bytes, *, is_one_block: bool = False) -> bytes:
        return await self.lane.in_thread(
            lambda: self.encoding.apply(content, is_one_block=is_one_block)
        )


def error_text(text: str) -> bytes:
    """An error may quote what a client sent, which need not be text."""
    return text.encode("utf-8", "backslashreplace")


async def whole(question: Question, headers: Mapping[str, str]) -> web.Response:
    """The result in one piece, after the statement has ended."""
    answer = await question.lane.in_thread(
        lambda: question.engine.run(question.session, question.query, question.format)
    )
    body = answer.body
    if not body and question.query.is_select and question.format == "Native":
        body = await question.empty_result()
    extra = {"X-ClickHouse-Summary": json.dumps(dict(answer.summary))}
    if answer.is_reading:
        extra["X-ClickHouse-Format"] = question.format
        body = await question.encoded(body)
    return web.Response(body=body, headers={**headers, **extra})


async def stream(
    request: web.Request, question: Question, headers: Mapping[str, str]
) -> web.StreamResponse:
    """The result as it is computed; an error in its middle is marked as ClickHouse marks it."""
    lane = question.lane
    chunks = await lane.in_thread(
        lambda: question.engine.open_stream(question.session, question.query, question.format)
    )
    try:
        # The first block is awaited before the status is sent: most errors show by then.
        chunk = await lane.in_thread(chunks.next_chunk)
        if chunk is None and question.format == "Native":
            chunk = await question.empty_result()
        if chunk is not None:
            chunk = await question.encoded(chunk, is_one_block=True)
        tag = secrets.token_hex(8)
        response = web.StreamResponse(
            headers={
                **headers,
                "X-ClickHouse-Format": question.format,
                "X-ClickHouse-Exception-Tag": tag,
            }
        )
        await response.prepare(request)
        await _send(response, question, chunks, chunk, tag)
        return response
    finally:
        await asyncio.shield(lane.in_thread(chunks.close))


async def _send(
    response: web.StreamResponse,
    question: Question,
    chunks: ChunkStream,
    encoded: bytes | None,
    tag: str,
) -> None:
    lane = question.lane
    try:
        while encoded is not None:
            async with asyncio.timeout(lane.limits.transfer_seconds):
                await response.write(encoded)
            chunk = await lane.in_thread(chunks.next_chunk)
            if chunk is None:
                break
            # The engine hands out one block at a time.
            encoded = await question.encoded(chunk, is_one_block=True)
    except ClickHouseError as error:
        # The status is long sent: ClickHouse marks such an end with the tag it announced.
        message = error_text(f"{error}\n")
        end = f"{len(message)} {tag}".encode()
        mark = b"\r\n__exception__\r\n"
        await response.write(mark + tag.encode() + b"\r\n" + message + end + mark)
    await response.write_eof()
