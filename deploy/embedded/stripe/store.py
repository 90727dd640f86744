"""What the stand-in keeps: one SQLite file. What was answered survives `kill -9`."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TABLES = """
CREATE TABLE IF NOT EXISTS objects (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    body TEXT NOT NULL, aside TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS objects_by_kind ON objects (kind, position);
CREATE TABLE IF NOT EXISTS jobs (
    position INTEGER PRIMARY KEY AUTOINCREMENT, due_s INTEGER NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_due ON jobs (due_s, position);
CREATE TABLE IF NOT EXISTS deliveries (
    position INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, due_s INTEGER NOT NULL,
    attempt INTEGER NOT NULL, forged INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL,
    answer TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS deliveries_by_due ON deliveries (state, due_s, position);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, made_s INTEGER NOT NULL, asked TEXT NOT NULL, status INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

INDEXED = ("charge", "customer", "invoice", "payment_intent")
"""Fields by which objects are looked for."""

Thing = dict[str, Any]


def _field(name: str) -> str:
    return f"json_extract(body, '$.{name}')"


INDICES = ";".join(
    f"CREATE INDEX IF NOT EXISTS objects_by_{name} ON objects (kind, {_field(name)})"
    for name in INDEXED
)


class Store:
    """Used by one thread. Changes are made within `transaction`."""

    def __init__(self, path: Path | str) -> None:
        self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._sql.execute("PRAGMA journal_mode=WAL")
        self._sql.execute("PRAGMA synchronous=NORMAL")
        self._sql.executescript(TABLES + INDICES)

    def close(self) -> None:
        self._sql.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._sql.execute("ROLLBACK")
            raise
        self._sql.execute("COMMIT")

    def insert(self, thing: Thing) -> None:
        self._sql.execute(
            "INSERT INTO objects (id, kind, body) VALUES (?, ?, ?)",
            (thing["id"], thing["object"], json.dumps(thing)),
        )

    def save(self, thing: Thing) -> None:
        self._sql.execute(
            "UPDATE objects SET body = ? WHERE id = ?", (json.dumps(thing), thing["id"])
        )

    def find(self, identifier: str) -> Thing | None:
        row = self._sql.execute("SELECT body FROM objects WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else json.loads(row[0])

    def aside(self, identifier: str) -> Thing:
        """What belongs to an object and is not shown in it."""
        row = self._sql.execute("SELECT aside FROM objects WHERE id = ?", (identifier,)).fetchone()
        return {} if row is None else json.loads(row[0])

    def put_aside(self, identifier: str, **values: Any) -> None:
        self._sql.execute(
            "UPDATE objects SET aside = ? WHERE id = ?",
            (json.dumps({**self.aside(identifier), **values}), identifier),
        )

    def newest_first(self, kind: str, older_than: str = "", **equal: str) -> Iterator[Thing]:
        """Of a kind, those whose fields of `INDEXED` have these values, and that are older than the
        object of this id. One is read after the other: nothing may change meanwhile."""
        assert set(equal) <= set(INDEXED)
        conditions = "".join(f" AND {_field(name)} = ?" for name in equal)
        values = [kind, *equal.values()]
        if older_than:
            conditions += " AND position < (SELECT position FROM objects WHERE id = ?)"
            values.append(older_than)
        rows = self._sql.execute(
            f"SELECT body FROM objects WHERE kind = ?{conditions} ORDER BY position DESC",  # noqa: S608 - names of ours
            values,
        )
        return (json.loads(body) for (body,) in rows)

    def counts(self) -> dict[str, int]:
        rows = self._sql.execute("SELECT kind, count(*) FROM objects GROUP BY kind ORDER BY kind")
        return dict(rows.fetchall())

    def add_job(self, due_s: int, action: str, subject: str) -> None:
        self._sql.execute(
            "INSERT INTO jobs (due_s, action, subject) VALUES (?, ?, ?)", (due_s, action, subject)
        )

    def drop_jobs(self, subject: str, *actions: str) -> None:
        for action in actions:
            self._sql.execute(
                "DELETE FROM jobs WHERE subject = ? AND action = ?", (subject, action)
            )

    def next_job(self) -> tuple[int, int, str, str] | None:
        """Position, due time, action and subject of what is due first."""
        row: tuple[int, int, str, str] | None = self._sql.execute(
            "SELECT position, due_s, action, subject FROM jobs ORDER BY due_s, position LIMIT 1"
        ).fetchone()
        return row

    def end_job(self, position: int) -> None:
        self._sql.execute("DELETE FROM jobs WHERE position = ?", (position,))

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """For deliveries and answers, whose statements stand where they belong."""
        return self._sql.execute(sql, values).fetchall()

    def setting(self, name: str, default: Any = None) -> Any:
        row = self._sql.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def set(self, name: str, value: Any) -> None:
        self._sql.execute(
            "INSERT INTO settings (name, value) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, json.dumps(value)),
        )
