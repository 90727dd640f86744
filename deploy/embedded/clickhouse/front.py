"""ClickHouse's HTTP interface in front of the engine in process, as far as our clients use it.

Lives here: requests in, answers out. What a statement is and may do is decided in `statements`,
`readonly` and `engine`.
Guarantees: a success is answered after the engine has taken the statement; at most
`requests_max` requests are held at a time, each with a body of at most `body_bytes_max`.
"""

import asyncio
import json
import secrets
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import web

from deploy.embedded.clickhouse.bodies import decompress, read_body
from deploy.embedded.clickhouse.engine import (
    READONLY_ALL,
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
# A read-only user sends statements, not data.
READONLY_BODY_BYTES_MAX = 1024 * 1024
# clickhouse-connect puts whole statements into the URL.
LINE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    threads: int = 8
    requests_max: int = 64
    body_bytes_max: int = 256 * 1024 * 1024


class Front:
    def __init__(self, engine: Engine, users: Users, limits: Limits) -> None:
        self._engine = engine
        self._users = users
        self._limits = limits
        self._pool = ThreadPoolExecutor(limits.threads, "engine")
        self._requests = 0

    def application(self) -> web.Application:
        application = web.Application(client_max_size=READONLY_BODY_BYTES_MAX)
        application.router.add_get("/ping", _ping)
        application.router.add_get("/replicas_status", _ping)
        application.router.add_route("*", "/", self._handle)
        return application

    def close(self) -> None:
        """Wait for the statements that run; nothing may be asked of the engine afterwards."""
        self._pool.shutdown(wait=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parameters = dict(request.query)
        headers = {
            "X-ClickHouse-Query-Id": parameters.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Timezone": self._engine.timezone,
            "X-ClickHouse-Server-Display-Name": "embedded",
        }
        self._requests += 1
        try:
            if self._requests > self._limits.requests_max:
                raise refusal(202, f"Too many requests: at most {self._limits.requests_max}.")
            return await self._answer(request, parameters, headers)
        except ClickHouseError as error:
            return web.Response(
                status=error.status,
                text=f"{error} (version {self._engine.version} (embedded))\n",
                headers={**headers, "X-ClickHouse-Exception-Code": str(error.code)},
            )
        finally:
            self._requests -= 1

    async def _answer(
        self, request: web.Request, parameters: dict[str, str], headers: Mapping[str, str]
    ) -> web.StreamResponse:
        user = authenticate(self._users, request.headers, parameters)
        if request.content_type == "multipart/form-data":
            form = await request.post()
            parameters |= {name: text for name, text in form.items() if isinstance(text, str)}
            body = b""
        else:
            body = await self._body(request, user)
        if request.method == "GET" and not parameters.get("query"):
            return web.Response(text="Ok.\n", headers=headers)
        session = _session(parameters, user, request.method)
        statement = read_statement(parameters.get("query", ""), body)
        if isinstance(statement, Insert):
            if session.readonly:
                raise readonly_refusal()
            summary = await self._in_thread(lambda: self._engine.insert(session, statement))
            return web.Response(
                headers={**headers, "X-ClickHouse-Summary": json.dumps(dict(summary))}
            )
        result_format = (
            statement.format
            or request.headers.get("X-ClickHouse-Format")
            or parameters.get("default_format", "TabSeparated")
        )
        headers = {
            **headers,
            "Content-Type": CONTENT_TYPES.get(result_format, "text/plain; charset=UTF-8"),
        }
        is_streamed = (
            statement.is_select
            and result_format in STREAMED_FORMATS
            and parameters.get("wait_end_of_query") != "1"
        )
        if is_streamed:
            return await self._stream(request, headers, session, statement, result_format)
        return await self._whole(headers, session, statement, result_format)

    async def _whole(
        self, headers: Mapping[str, str], session: Session, query: Query, result_format: str
    ) -> web.Response:
        answer = await self._in_thread(lambda: self._engine.run(session, query, result_format))
        body = answer.body
        if not body and query.is_select and result_format == "Native":
            body = await self._in_thread(lambda: self._empty_result(session, query))
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
    ) -> web.StreamResponse:
        stream = await self._in_thread(
            lambda: self._engine.open_stream(session, query, result_format)
        )
        try:
            # The first block is awaited before the status is sent: most errors show by then.
            chunk = await self._in_thread(stream.next_chunk)
            if chunk is None and result_format == "Native":
                chunk = await self._in_thread(lambda: self._empty_result(session, query))
            tag = secrets.token_hex(8)
            response = web.StreamResponse(
                headers={
                    **headers,
                    "X-ClickHouse-Format": result_format,
                    "X-ClickHouse-Exception-Tag": tag,
                }
            )
            await response.prepare(request)
            await self._send_chunks(response, stream, chunk, tag)
            return response
        finally:
            await asyncio.shield(self._in_thread(stream.close))

    async def _send_chunks(
        self, response: web.StreamResponse, stream: ChunkStream, chunk: bytes | None, tag: str
    ) -> None:
        try:
            while chunk is not None:
                await response.write(chunk)
                chunk = await self._in_thread(stream.next_chunk)
        except ClickHouseError as error:
            # The status is long sent: ClickHouse marks such an end with the tag it announced.
            message = f"{error}\n".encode()
            end = f"{len(message)} {tag}".encode()
            mark = b"\r\n__exception__\r\n"
            await response.write(mark + tag.encode() + b"\r\n" + message + end + mark)
        await response.write_eof()

    def _empty_result(self, session: Session, query: Query) -> bytes:
        return empty_block(self._engine.columns(session, query))

    async def _body(self, request: web.Request, user: User) -> bytes:
        bytes_max = READONLY_BODY_BYTES_MAX if user.is_readonly else self._limits.body_bytes_max
        body = await read_body(request, bytes_max)
        encoding = request.headers.get("Content-Encoding", "")
        if not encoding:
            return body
        return await self._in_thread(lambda: decompress(body, encoding, bytes_max))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


def _session(parameters: Mapping[str, str], user: User, method: str) -> Session:
    database = parameters.get("database")
    # As on a server: a GET may not modify.
    readonly_of_method = READONLY_DATA if method == "GET" else 0
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
        readonly=READONLY_ALL if user.is_readonly else readonly_of_method,
    )


async def _ping(_request: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")
