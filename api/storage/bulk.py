"""Many rows at once: by `COPY` on PostgreSQL, in one prepared statement on SQLite.

Rows are given as columns and values, every one with the same columns and all of its values; what
the database itself fills in (serial numbers) is left out. Measured with 100,000 rows: PostgreSQL's
`executemany` takes minutes on a busy machine, `COPY` seconds; on SQLite, where the whole database
waits for a write, SQLAlchemy's own way takes three times as long as the driver's.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from psycopg import sql
from sqlalchemy import JSON, Dialect, Table, insert
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

FEW_ROWS: Final = 100


def insert_rows(session: Session, model: type[Any], rows: Sequence[dict[str, Any]]) -> None:
    """Inserts all rows in the session's transaction; nothing happens for none."""
    if not rows:
        return
    table: Table = model.__table__
    if len(rows) <= FEW_ROWS:
        session.execute(insert(table), list(rows))
    elif session.get_bind().dialect.name == "postgresql":
        _copy(session, table, rows)
    else:
        _prepared(session, table, rows)


def _prepared(session: Session, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(rows[0])
    connection = session.connection()
    converters = [_as_kept(table.c[name].type, connection.dialect) for name in columns]
    statement = (
        f"INSERT INTO {table.name} ({', '.join(columns)}) "  # noqa: S608 - our own names
        f"VALUES ({', '.join('?' * len(columns))})"
    )
    cursor = connection.connection.cursor()
    try:
        cursor.executemany(
            statement,
            [
                [keep(row[name]) for keep, name in zip(converters, columns, strict=True)]
                for row in rows
            ],
        )
    finally:
        cursor.close()


def _as_kept(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any]:
    """How a value of this type is kept. The rows of one change share their times, so that each
    is written out once."""
    if isinstance(kind, JSON):
        return _json
    process = kind.dialect_impl(dialect).bind_processor(dialect)
    return cache(process) if process else lambda value: value


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _copy(session: Session, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(rows[0])
    is_json = {name: isinstance(table.c[name].type, JSON) for name in columns}
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    cursor = session.connection().connection.cursor()
    try:
        with cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(
                    [_json(row[name]) if is_json[name] else row[name] for name in columns]
                )
    finally:
        cursor.close()
