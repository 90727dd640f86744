"""The ClickHouse engine inside this process (chdb): one directory, one connection a statement.

A fresh connection costs 0.07 ms and keeps settings from leaking between requests; statements on
two connections run in parallel (the engine releases the GIL).
Every method blocks and is called in the front's thread pool.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import chdb

from deploy.embedded.clickhouse.errors import (
    ClickHouseError,
    from_engine,
    readonly_refusal,
    refusal,
)
from deploy.embedded.clickhouse.readonly import (
    Surroundings,
    check_database,
    check_plain,
    check_tree,
)
from deploy.embedded.clickhouse.readonly_settings import ReaderLimits, check_reader_setting
from deploy.embedded.clickhouse.statements import Insert, Query, read_query

# What chdb raises: `ChdbError` (a RuntimeError) from queries, a plain RuntimeError from inserts,
# ValueError for text that is no statement.
ENGINE_ERRORS: Final = (RuntimeError, ValueError)

# `readonly` means what it means on a server: 2 refuses every change of data, but not of settings.
READONLY_DATA = 2

# The engine's user and roles, beside this file; it reads them relative to the working directory.
ACCESS_DIRECTORY: Final = Path(__file__).with_name("access")
ACCESS_FILE: Final = "engine.xml"
READER_ROLE: Final = "reader"

# How the engine says that it has no tree for a kind of statement.
NO_TREE: Final = "does not support JSON serialization"
# There is none of DESCRIBE; what is described is what could be selected from.
DESCRIBE, SELECT_ALL = "DESCRIBE TABLE ", "SELECT * FROM "

# An acknowledged insert is on disk, not in a buffer; an explicit setting still wins.
DEFAULT_SETTINGS: Final = {"async_insert": "0"}


@dataclass(frozen=True, slots=True)
class Session:
    """What surrounds one statement."""

    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    database: str | None = None
    readonly: int = 0
    is_reader: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    summary: Mapping[str, str]
    is_reading: bool


class ChunkStream:
    """A SELECT whose result arrives block by block; `close` also ends one that still runs."""

    def __init__(self, connection: Any, chunks: Any) -> None:
        self._connection = connection
        self._chunks = chunks

    def next_chunk(self) -> bytes | None:
        try:
            chunk = next(self._chunks, None)
        except ENGINE_ERRORS as error:
            raise from_engine(error) from None
        return None if chunk is None else bytes(chunk.bytes())

    def close(self) -> None:
        self._chunks.close()
        self._connection.close()


class Engine:
    """Owns the directory: no second process can open it, and `kill -9` frees it."""

    def __init__(self, path: Path, limits: ReaderLimits) -> None:
        """`limits` bound what a statement of a read-only user may take."""
        self._path = str(path)
        self._limits = limits
        os.chdir(ACCESS_DIRECTORY)
        # This connection is held open, because the engine shuts down with its last one.
        self._root = chdb.connect(f"{self._path}?config-file={ACCESS_FILE}")
        self._drop_overlay()
        self.version, self.timezone = self._rows("SELECT version(), timezone()")[0]
        self._settings = {
            row[0]: row[1] for row in self._rows("SELECT name, value FROM system.settings")
        }
        self._functions = {
            name for (name,) in self._rows("SELECT lower(name) FROM system.functions")
        }
        self._formats = {
            name for (name,) in self._rows("SELECT lower(name) FROM system.formats WHERE is_output")
        }

    def close(self) -> None:
        self._root.close()

    def check_format(self, name: str) -> None:
        """Only the engine's own: chdb takes some further words, which mean Python objects."""
        if name.lower() not in self._formats:
            raise refusal(73, f"Unknown format {name}.")

    def readable(self, session: Session, query: Query) -> Query:
        """A read-only user's statement as it is run: written from the tree that was checked."""
        if "\0" in query.sql:
            raise readonly_refusal("A NUL character is not for read-only users.")
        if session.database:
            check_database(session.database)
        (written,) = self._evaluated(f"formatQuerySingleLine({_quoted(query.sql)})")
        if check_plain(written):
            return read_query(written)
        is_description = written.startswith(DESCRIBE)
        text = SELECT_ALL + written.removeprefix(DESCRIBE) if is_description else written
        try:
            tree, checked = self._evaluated(
                f"parseQueryToJSON({_quoted(text)}) AS tree, formatQueryFromJSON(tree)"
            )
        except ClickHouseError as error:
            if NO_TREE in str(error):
                raise readonly_refusal() from None
            raise
        surroundings = Surroundings(
            session.parameters,
            self._functions,
            partial(self._check_reader_setting, statement_characters=len(query.sql)),
        )
        try:
            check_tree(json.loads(tree), surroundings)
        except RecursionError:
            raise refusal(306, "The statement is nested too deeply.") from None
        if _without_parentheses(checked) != _without_parentheses(text):
            # The tree lacks something of the statement, so its check is not worth anything.
            raise readonly_refusal("Not understood, so not for read-only users.")
        if is_description:
            return read_query(DESCRIBE + checked.removeprefix(SELECT_ALL))
        return read_query(checked)

    def _check_reader_setting(self, name: str, value: str, statement_characters: int = 0) -> None:
        current = {
            **self._settings,
            **DEFAULT_SETTINGS,
            **self._limits.settings,
            "readonly": str(READONLY_DATA),
        }
        check_reader_setting(name, value, self._limits, current, statement_characters)

    def insert(self, session: Session, insert: Insert) -> Mapping[str, str]:
        """All rows or none: a bad row inserts nothing. On return they survive `kill -9`."""
        # Not `send_insert`: its `finish` reports success when the write fails after parsing
        # (constraint, too many parts or partitions, a failing view), and the rows are gone.
        body = os.memfd_create("insert")
        try:
            with os.fdopen(os.dup(body), "wb") as file:
                file.write(insert.content)
            with self._connection(session) as connection:
                outcome = connection.query(
                    f"INSERT INTO {insert.target} FROM INFILE '/proc/self/fd/{body}'"
                    f" FORMAT {insert.format}"
                )
                return {
                    "written_rows": str(outcome.rows_read()),
                    "written_bytes": str(len(insert.content)),
                    "elapsed_ns": str(int(outcome.elapsed() * 1e9)),
                }
        finally:
            os.close(body)

    def run(self, session: Session, query: Query, result_format: str) -> Answer:
        with self._connection(session) as connection:
            is_reading = self._check(connection, session, query.sql)
            if session.is_reader:
                self._limit_result(connection, session, query)
            result = connection.query(query.sql, result_format, params=dict(session.parameters))
            return Answer(
                body=bytes(result.bytes()) if result.size() else b"",
                summary={
                    "read_rows": str(result.storage_rows_read()),
                    "read_bytes": str(result.storage_bytes_read()),
                    "result_rows": str(result.rows_read()),
                    "elapsed_ns": str(int(result.elapsed() * 1e9)),
                },
                is_reading=is_reading,
            )

    def open_stream(self, session: Session, query: Query, result_format: str) -> ChunkStream:
        connection = self._open(session)
        try:
            self._check(connection, session, query.sql)
            chunks = connection.send_query(
                query.sql, result_format, params=dict(session.parameters)
            )
        except ENGINE_ERRORS as error:
            connection.close()
            raise from_engine(error) from None
        except BaseException:
            connection.close()
            raise
        return ChunkStream(connection, chunks)

    def columns(self, session: Session, query: Query) -> list[tuple[str, str]]:
        """Names and types of a SELECT's result, which an empty result does not carry here."""
        with self._connection(session) as connection:
            described = connection.query(
                f"DESCRIBE TABLE ({query.sql_without_format}\n)",
                "JSONCompactColumns",
                params=dict(session.parameters),
            )
            return _name_and_type(bytes(described.bytes()))

    def _limit_result(self, connection: Any, session: Session, query: Query) -> None:
        """Of a result that is held in memory as a whole; a streamed one needs no limit."""
        for name, most in self._limits.result(len(query.sql)).items():
            limit = int(float(session.settings.get(name, "0")))
            connection.query(f"SET {name}={min(limit, most) or most}")

    def _check(self, connection: Any, session: Session, sql: str) -> bool:
        """Whether the statement only reads; a read-only session gets through with no other."""
        query_class = connection._conn.classify_query(sql)
        if query_class["statement_count"] > 1:
            raise refusal(62, "Syntax error: multi-statements are not allowed.")
        is_reading = bool(query_class["query_class"].name == "READ_ONLY")
        if session.readonly and not is_reading:
            raise readonly_refusal()
        return is_reading

    @contextmanager
    def _connection(self, session: Session) -> Iterator[Any]:
        connection = self._open(session)
        try:
            yield connection
        except ENGINE_ERRORS as error:
            raise from_engine(error) from None
        finally:
            connection.close()

    def _open(self, session: Session) -> Any:
        settings = self._effective_settings(session)
        connection = chdb.connect(self._path)
        try:
            changes = ", ".join(f"{name}={_quoted(value)}" for name, value in settings.items())
            connection.query(f"SET {changes}")
            if session.database:
                connection.query("USE {name:Identifier}", params={"name": session.database})
            if session.is_reader:
                connection.query(f"SET ROLE {READER_ROLE}")
            if session.readonly:
                connection.query(f"SET readonly={session.readonly}")
        except ENGINE_ERRORS as error:
            connection.close()
            raise from_engine(error) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _effective_settings(self, session: Session) -> Mapping[str, str]:
        for name, value in session.settings.items():
            # Unknown ones are refused although the engine might ignore them: a mistyped setting
            # must fail here as it fails on a server. (Names also go into SQL unquoted.)
            if name not in self._settings:
                raise refusal(
                    115,
                    f"Setting {name} is neither a builtin setting nor started with the prefix"
                    " 'SQL_' registered for user-defined settings.",
                )
            if session.is_reader:
                self._check_reader_setting(name, value)
        if not session.is_reader:
            return {**DEFAULT_SETTINGS, **session.settings}
        # `readonly` is set last; it passed the check because it asks for what it will be.
        changes = {name: value for name, value in session.settings.items() if name != "readonly"}
        return {**DEFAULT_SETTINGS, **self._limits.settings, **changes}

    def _drop_overlay(self) -> None:
        """Without this, every user could read files: `SELECT * FROM default.`/etc/passwd``.

        The engine in process starts with `default` as an overlay over the file system, made anew
        at each start. Connections need a `default`; one of dictionaries cannot hold tables, so
        nothing of worth is stored where the next start would hide it.
        """
        if self._rows("SELECT 1 FROM system.databases WHERE name='default' AND engine='Overlay'"):
            self._root.query("DROP DATABASE default")
            self._root.query("CREATE DATABASE default ENGINE=Dictionary")

    def _evaluated(self, expressions: str) -> list[str]:
        """What a SELECT of these expressions answers in its one row, with nobody's settings."""
        with self._connection(Session()) as connection:
            answer = connection.query(f"SELECT {expressions}", "JSONCompact").bytes()
        return [str(value) for value in json.loads(bytes(answer))["data"][0]]

    def _rows(self, sql: str) -> list[tuple[str, ...]]:
        text = self._root.query(sql, "TSV").bytes().decode()
        return [tuple(line.split("\t")) for line in text.splitlines()]


def _without_parentheses(sql: str) -> str:
    """The tree does not keep parentheses that mean nothing."""
    return re.sub(r"[()\s]", "", sql)


def _name_and_type(described: bytes) -> list[tuple[str, str]]:
    names, types, *_ = json.loads(described)
    return list(zip(names, types, strict=True))


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
