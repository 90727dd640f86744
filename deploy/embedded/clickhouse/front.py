"""ClickHouse's HTTP interface in front of the engine in process, as far as our clients use it.

Lives here: requests in, answers out. What a statement is and may do is decided in `statements`,
`readonly` and `engine`.
Guarantees: a success is answered after the engine has taken the statement. Nobody's body is read
before it is known who they are. Read-only users have requests, statements and threads of their
own (`Lane`), so that they can wait for each other and never for, or before, the sink.
"""

import asyncio
import json
import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import web

from deploy.embedded.clickhouse.bodies import decompress, read_body
from deploy.embedded.clickhouse.engine import (
    READONLY_DATA,
    ChunkStream,
    Engine,
    Session,
)
from deploy.embedded.clickhouse.errors import ClickHouseError, readonly_refusal, refusal
from deploy.embedded.clickhouse.native import empty_block
from deploy.embedded.clickhouse.statements import Insert, Query, read_statement
from deploy.embedded.clickhouse.users import User, Users, authenticate

T = TypeVar("T")

# Parameters of the HTTP interface itself; all others are settings, or `param_…` of the statement.
TRANSPORT_PARAMETERS: Final = frozenset(
    {
        "query",
        "database",
        "user",
        "password",
        "quota_key",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "compress",
        "decompress",
        "buffer_size",
        "wait_end_of_query",
        "default_format",
        "role",
        "client_protocol_version",
        "enable_http_compression",
        "http_zlib_compression_level",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "stacktrace",
        "close_session",
        "cancel_http_readonly_queries_on_client_close",
    }
)
# Formats that stay whole when their blocks are sent one after the other.
STREAMED_FORMATS: Final = frozenset(
    {"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"}
)
CONTENT_TYPES: Final = {
    "JSON": "application/json",
    "JSONCompact": "application/json",
    "JSONEachRow": "application/x-ndjson",
    "CSV": "text/csv",
    "TabSeparated": "text/tab-separated-values",
    "TSV": "text/tab-separated-values",
    "Native": "application/octet-stream",
}
# clickhouse-connect puts whole statements into the URL.
LINE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken on at a time; a body counts decompressed."""

    statements: int
    requests: int
    body_bytes: int
    transfer_seconds: float | None = None
    """How long a body may take to arrive, and a client to take each piece of its answer."""


WRITER_LIMITS: Final = Limits(statements=8, requests=64, body_bytes=256 * 1024 * 1024)
READER_LIMITS: Final = Limits(
    statements=4, requests=64, body_bytes=1024 * 1024, transfer_seconds=30.0
)


class Lane:
    """What one kind of users has for itself: threads, and turns for statements."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.limits = limits
        # One thread more than statements, for what a request needs before its turn.
        self._pool = ThreadPoolExecutor(limits.statements + 1, name)
        self._turns = asyncio.Semaphore(limits.statements)
        self._requests = 0

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request while it is held; one too many is refused at once."""
        if self._requests >= self.limits.requests:
            raise refusal(202, f"Too many requests: at most {self.limits.requests}.")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def turn(self) -> asyncio.Semaphore:
        """To be held while a statement runs, from its first block to its last."""
        return self._turns

    async def in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


class Front:
    def __init__(
        self,
        engine: Engine,
        users: Users,
        writer_limits: Limits = WRITER_LIMITS,
        reader_limits: Limits = READER_LIMITS,
    ) -> None:
        self._engine = engine
        self._users = users
        self._writers = Lane("writer", writer_limits)
        self._readers = Lane("reader", reader_limits)

    def application(self) -> web.Application:
        application = web.Application(client_max_size=self._readers.limits.body_bytes)
        application.router.add_get("/ping", _ping)
        application.router.add_get("/replicas_status", _ping)
        application.router.add_route("*", "/", self._handle)
        return application

    def close(self) -> None:
        """Wait for the statements that run; nothing may be asked of the engine afterwards."""
        self._writers.close()
        self._readers.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parameters = dict(request.query)
        headers = {
            "X-ClickHouse-Query-Id": _query_id(parameters),
            "X-ClickHouse-Timezone": self._engine.timezone,
            "X-ClickHouse-Server-Display-Name": "embedded",
        }
        try:
            user = authenticate(self._users, request.headers, parameters)
            lane = self._readers if user.is_readonly else self._writers
            with lane.request():
                return await self._answer(request, parameters, headers, user, lane)
        except ClickHouseError as error:
            return web.Response(
                status=error.status,
                body=_encoded(f"{error} (version {self._engine.version} (embedded))\n"),
                content_type="text/plain",
                charset="utf-8",
                headers={**headers, "X-ClickHouse-Exception-Code": str(error.code)},
            )

    async def _answer(
        self,
        request: web.Request,
        parameters: dict[str, str],
        headers: Mapping[str, str],
        user: User,
        lane: Lane,
    ) -> web.StreamResponse:
        body = await _received(request, parameters, lane)
        if request.method == "GET" and not parameters.get("query"):
            return web.Response(text="Ok.\n", headers=headers)
        session = _session(parameters, request, user)
        statement = read_statement(parameters.get("query", ""), body)
        async with lane.turn():
            if isinstance(statement, Insert):
                if session.readonly:
                    raise readonly_refusal()
                summary = await lane.in_thread(lambda: self._engine.insert(session, statement))
                return web.Response(
                    headers={**headers, "X-ClickHouse-Summary": json.dumps(dict(summary))}
                )
            query = statement
            if session.is_reader:
                query = await lane.in_thread(lambda: self._engine.readable(session, statement))
            return await self._result(request, parameters, headers, session, query, lane)

    async def _result(
        self,
        request: web.Request,
        parameters: Mapping[str, str],
        headers: Mapping[str, str],
        session: Session,
        query: Query,
        lane: Lane,
    ) -> web.StreamResponse:
        result_format = (
            query.format
            or request.headers.get("X-ClickHouse-Format")
            or parameters.get("default_format", "TabSeparated")
        )
        self._engine.check_format(result_format)
        headers = {
            **headers,
            "Content-Type": CONTENT_TYPES.get(result_format, "text/plain; charset=UTF-8"),
        }
        is_streamed = (
            query.is_select
            and result_format in STREAMED_FORMATS
            and parameters.get("wait_end_of_query") != "1"
        )
        if is_streamed:
            return await self._stream(request, headers, session, query, result_format, lane)
        return await self._whole(headers, session, query, result_format, lane)

    async def _whole(
        self,
        headers: Mapping[str, str],
        session: Session,
        query: Query,
        result_format: str,
        lane: Lane,
    ) -> web.Response:
        answer = await lane.in_thread(lambda: self._engine.run(session, query, result_format))
        body = answer.body
        if not body and query.is_select and result_format == "Native":
            body = await lane.in_thread(lambda: self._empty_result(session, query))
        extra = {"X-ClickHouse-Summary": json.dumps(dict(answer.summary))}
        if answer.is_reading:
            extra["X-ClickHouse-Format"] = result_format
        return web.Response(body=body, headers={**headers, **extra})

    async def _stream(
        self,
        request: web.Request,
        headers: Mapping[str, str],
        session: Session,
        query: Query,
        result_format: str,
        lane: Lane,
    ) -> web.StreamResponse:
        stream = await lane.in_thread(
            lambda: self._engine.open_stream(session, query, result_format)
        )
        try:
            # The first block is awaited before the status is sent: most errors show by then.
            chunk = await lane.in_thread(stream.next_chunk)
            if chunk is None and result_format == "Native":
                chunk = await lane.in_thread(lambda: self._empty_result(session, query))
            tag = secrets.token_hex(8)
            response = web.StreamResponse(
                headers={
                    **headers,
                    "X-ClickHouse-Format": result_format,
                    "X-ClickHouse-Exception-Tag": tag,
                }
            )
            await response.prepare(request)
            await _send_chunks(response, stream, chunk, tag, lane)
            return response
        finally:
            await asyncio.shield(lane.in_thread(stream.close))

    def _empty_result(self, session: Session, query: Query) -> bytes:
        return empty_block(self._engine.columns(session, query))


async def _received(request: web.Request, parameters: dict[str, str], lane: Lane) -> bytes:
    """The plain body; the fields of a form are added to the parameters instead."""
    try:
        async with asyncio.timeout(lane.limits.transfer_seconds):
            if request.content_type == "multipart/form-data":
                form = await request.post()
                parameters |= {name: text for name, text in form.items() if isinstance(text, str)}
                return b""
            body = await read_body(request, lane.limits.body_bytes)
    except TimeoutError:
        raise refusal(209, "The request's body did not arrive in time.") from None
    encoding = request.headers.get("Content-Encoding", "")
    if not encoding:
        return body
    return await lane.in_thread(lambda: decompress(body, encoding, lane.limits.body_bytes))


async def _send_chunks(
    response: web.StreamResponse, stream: ChunkStream, chunk: bytes | None, tag: str, lane: Lane
) -> None:
    try:
        while chunk is not None:
            async with asyncio.timeout(lane.limits.transfer_seconds):
                await response.write(chunk)
            chunk = await lane.in_thread(stream.next_chunk)
    except ClickHouseError as error:
        # The status is long sent: ClickHouse marks such an end with the tag it announced.
        message = _encoded(f"{error}\n")
        end = f"{len(message)} {tag}".encode()
        mark = b"\r\n__exception__\r\n"
        await response.write(mark + tag.encode() + b"\r\n" + message + end + mark)
    await response.write_eof()


def _query_id(parameters: Mapping[str, str]) -> str:
    """The client's, which goes back in a header; one of ours where it could not."""
    given = parameters.get("query_id", "")
    return given if given.isascii() and given.isprintable() and given else str(uuid.uuid4())


def _encoded(text: str) -> bytes:
    """An error may quote what a client sent, which need not be text."""
    return text.encode("utf-8", "backslashreplace")


def _session(parameters: Mapping[str, str], request: web.Request, user: User) -> Session:
    database = parameters.get("database") or request.headers.get("X-ClickHouse-Database")
    # As on a server: a GET may not modify.
    is_reading = user.is_readonly or request.method == "GET"
    return Session(
        settings={
            name: value
            for name, value in parameters.items()
            if name not in TRANSPORT_PARAMETERS and not name.startswith("param_")
        },
        parameters={
            name.removeprefix("param_"): value
            for name, value in parameters.items()
            if name.startswith("param_")
        },
        # Every connection starts in `default`, and clients name it when they mean none.
        database=None if database in ("default", "__default__") else database,
        readonly=READONLY_DATA if is_reading else 0,
        is_reader=user.is_readonly,
    )


async def _ping(_request: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")
