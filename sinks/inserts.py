"""One insert into ClickHouse over plain HTTP: acknowledged, refused for its content, or neither.

Plain HTTP rather than a client library: the rows are JSON bytes already, and no library may send
them again on its own behind our back.
"""

import json
from http import HTTPStatus
from typing import Final

import aiohttp

from schemas.settings import Settings
from sinks.errors import RefusedError, UnavailableError

CONNECT_TIMEOUT_S: Final = 5.0
INSERT_TIMEOUT_S: Final = 120.0
ERROR_TEXT_MAX: Final = 1_000

WANTED_SETTINGS: Final = {
    # An acknowledged row is stored, not buffered.
    "async_insert": "0",
    # Deduplication by the engine was measured to lose rows after kill -9: keys do it here.
    "deduplicate_insert": "disable",
    "insert_deduplicate": "0",
    "distributed_foreground_insert": "1",
    "date_time_input_format": "best_effort",
    "input_format_skip_unknown_fields": "1",
}
"""Sent as far as the server knows them."""

CONTENT_ERRORS: Final = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        25,  # CANNOT_PARSE_ESCAPE_SEQUENCE
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        32,  # ATTEMPT_TO_READ_AFTER_EOF
        33,  # CANNOT_READ_ALL_DATA
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        128,  # TOO_LARGE_ARRAY_SIZE
        130,  # CANNOT_READ_ARRAY_FROM_TEXT
        131,  # TOO_LARGE_STRING_SIZE
        307,  # TOO_MANY_BYTES
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        407,  # DECIMAL_OVERFLOW
        467,  # CANNOT_PARSE_BOOL
        469,  # VIOLATED_CONSTRAINT
        632,  # UNEXPECTED_DATA_AFTER_PARSED_VALUE
        636,  # CANNOT_EXTRACT_TABLE_STRUCTURE
    }
)
TOO_MANY_PARTS: Final = 252
UNKNOWN_EXCEPTION: Final = 1002


class Inserter:
    """Inserts into one database. Not for use by several tasks at a time."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.clickhouse_url.rstrip("/") + "/"
        self._database = settings.clickhouse_database
        self._session = aiohttp.ClientSession(
            headers={
                "X-ClickHouse-User": settings.clickhouse_user,
                "X-ClickHouse-Key": settings.clickhouse_password.get_secret_value(),
            },
            timeout=aiohttp.ClientTimeout(total=INSERT_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )
        self._settings: dict[str, str] | None = None

    async def close(self) -> None:
        await self._session.close()

    async def insert(self, table: str, rows: list[bytes]) -> None:
        """Return once ClickHouse acknowledged all rows (JSON objects).

        Raises `RefusedError` when their content is at fault (some may be in), `UnavailableError`
        otherwise (all, some or none may be in). Either way they may be sent again.
        """
        if self._settings is None:
            self._settings = await self._known_settings()
        query = f"INSERT INTO {table} FORMAT JSONEachRow"
        try:
            _answer, summary = await self._ask(query, b"\n".join(rows), self._settings)
        except UnavailableError:
            # The next server to answer may be of another version.
            self._settings = None
            raise
        written = int(json.loads(summary or "{}").get("written_rows", len(rows)))
        if written < len(rows):
            # Two broken rows can make one that parses. (More is fine: it may feed further tables.)
            raise RefusedError(f"{len(rows)} rows were sent and {written} came out of them")

    async def _known_settings(self) -> dict[str, str]:
        names = ", ".join(f"'{name}'" for name in WANTED_SETTINGS)
        known = await self.text(f"SELECT name FROM system.settings WHERE name IN ({names})")  # noqa: S608
        return {name: WANTED_SETTINGS[name] for name in known.split()}

    async def text(self, query: str, settings: dict[str, str] | None = None) -> str:
        """The answer of a SELECT as tab-separated text. Raises as `insert` does."""
        answer, _summary = await self._ask(query, b"", settings or {})
        return answer.decode()

    async def _ask(self, query: str, body: bytes, settings: dict[str, str]) -> tuple[bytes, str]:
        """The answer and ClickHouse's summary of it (JSON, may be empty)."""
        parameters = {
            "query": query,
            "database": self._database,
            # A status of 200 is otherwise sent before all errors have shown.
            "wait_end_of_query": "1",
            **settings,
        }
        try:
            async with self._session.post(self._url, params=parameters, data=body) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        code = response.headers.get("X-ClickHouse-Exception-Code", "")
        if response.status != HTTPStatus.OK or code:
            raise _failure(code, response.status, answer)
        return answer, response.headers.get("X-ClickHouse-Summary", "")


def _failure(code: str, status: int, answer: bytes) -> RefusedError | UnavailableError:
    text = answer.decode("utf-8", "replace").strip()[:ERROR_TEXT_MAX]
    number = int(code) if code.isdecimal() else 0
    # The same code says that merges lag behind, which passes, and that one insert has rows for too
    # many partitions, which passes only when it is cut smaller.
    is_too_wide = number == TOO_MANY_PARTS and "single INSERT" in text
    # The embedded engine cannot quote bytes that are no text; its message then says only that.
    is_no_text = number == UNKNOWN_EXCEPTION and "codec can't decode" in text
    if number in CONTENT_ERRORS or is_too_wide or is_no_text:
        return RefusedError(text)
    return UnavailableError(text or f"HTTP status {status}")
