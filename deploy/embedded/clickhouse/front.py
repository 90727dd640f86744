"""ClickHouse's HTTP interface in front of the engine in process, as far as our clients use it.

Lives here: requests in, answers out. What a statement is and may do is decided in `statements`,
`readonly` and `engine`.
Guarantees: a success is answered after the engine has taken the statement. Nobody's body is read
before it is known who they are. Read-only users have requests, statements and threads of their
own (`Lane`), so that they can wait for each other and never for, or before, the sink.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from deploy.embedded.clickhouse.answers import Encoding, Question, error_text, stream, whole
from deploy.embedded.clickhouse.bodies import decompress, read_body
from deploy.embedded.clickhouse.engine import (
    READONLY_DATA,
    Engine,
    Session,
)
from deploy.embedded.clickhouse.errors import ClickHouseError, readonly_refusal, refusal
from deploy.embedded.clickhouse.lanes import READER_LIMITS, WRITER_LIMITS, Lane, Limits
from deploy.embedded.clickhouse.statements import Insert, Query, read_statement
from deploy.embedded.clickhouse.users import User, Users, authenticate

# What ends a request whose client is gone; nobody reads it.
CLIENT_LEFT: Final = 499
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
        # Compressed blocks are LZ4, which every client reads, whatever it asks for.
        "network_compression_method",
        "network_zstd_compression_level",
    }
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
                body=error_text(f"{error} (version {self._engine.version} (embedded))\n"),
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
            if request.transport is None:
                # Its client left while it waited. Run, it would only keep others from their turn.
                return web.Response(status=CLIENT_LEFT)
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
        question = Question(
            engine=self._engine,
            session=session,
            query=query,
            format=result_format,
            encoding=_encoding(parameters, result_format),
            lane=lane,
        )
        if question.is_streamed and parameters.get("wait_end_of_query") != "1":
            return await stream(request, question, headers)
        return await whole(question, headers)


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


def _encoding(parameters: Mapping[str, str], result_format: str) -> Encoding:
    revision = parameters.get("client_protocol_version", "")
    return Encoding(
        revision=int(revision) if result_format == "Native" and revision.isdecimal() else 0,
        is_compressed=parameters.get("compress") == "1",
    )


def _query_id(parameters: Mapping[str, str]) -> str:
    """The client's, which goes back in a header; one of ours where it could not."""
    query_id = parameters.get("query_id", "")
    return (
        query_id
        if query_id.isascii() and query_id.isprintable() and query_id
        else str(uuid.uuid4())
    )


def _session(parameters: Mapping[str, str], request: web.Request, user: User) -> Session:
    database = parameters.get("database") or request.headers.get("X-ClickHouse-Database")
    # A GET may not modify anything, as on a server.
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
