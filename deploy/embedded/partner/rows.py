"""The reference partner's SQLite file: switches, the clock, webhooks that wait, and documents."""

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

Document = dict[str, Any]

TABLES: Final = """
CREATE TABLE IF NOT EXISTS purchases (
    purchase_id TEXT PRIMARY KEY, key TEXT UNIQUE, digest TEXT NOT NULL, request TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charges (
    charge_id TEXT PRIMARY KEY, purchase_id TEXT NOT NULL, number INTEGER NOT NULL,
    updated_at TEXT NOT NULL, document TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS charges_changed ON charges (updated_at, charge_id);
CREATE INDEX IF NOT EXISTS charges_purchase ON charges (purchase_id);
CREATE TABLE IF NOT EXISTS subscriptions (
    subscription_id TEXT PRIMARY KEY, purchase_id TEXT NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS webhooks (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, body TEXT NOT NULL, held INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0, done TEXT);
CREATE TABLE IF NOT EXISTS portals (
    token TEXT PRIMARY KEY, organization TEXT NOT NULL, pool_kind TEXT NOT NULL,
    pool TEXT NOT NULL, expires_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS switches (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Refusal(Exception):
    """An answer of the contract that is no success."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def text_of(at: datetime) -> str:
    """Always with microseconds, so that texts sort as their times do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


class Rows:
    """One connection, one thread."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.executescript(TABLES)

    def forget(self) -> None:
        """As if it had just been made."""
        with self.change():
            for table in ("purchases", "charges", "subscriptions", "webhooks", "portals"):
                self.database.execute(f"DELETE FROM {table}")  # noqa: S608 - named here
            self.database.execute("DELETE FROM switches")

    def close(self) -> None:
        self.database.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")

    def switch(self, name: str, otherwise: Any) -> Any:
        row = self.row("SELECT value FROM switches WHERE name = ?", name)
        return json.loads(row[0]) if row else otherwise

    def set_switch(self, name: str, value: Any) -> None:
        self.database.execute("REPLACE INTO switches VALUES (?, ?)", (name, json.dumps(value)))

    def now(self) -> datetime:
        """The wall clock, moved as `/_control/clock` said."""
        return datetime.now(UTC) + timedelta(seconds=self.switch("clock_ahead_s", 0.0))

    def add_webhook(self, kind: str, data: Document) -> None:
        mode = self.switch("delivery", "deliver")
        if mode == "drop":
            return
        body = json.dumps({"type": kind, "timestamp": text_of(self.now()), "data": data})
        self.database.execute(
            "INSERT INTO webhooks (id, body, held) VALUES (?, ?, ?)",
            (f"pevt_{secrets.token_hex(8)}", body, int(mode == "hold")),
        )

    def due_webhooks(self, wall_s: float) -> list[tuple[int, str, str, int]]:
        """Number, id, body and former attempts of what is to be sent now, in order."""
        return self.database.execute(
            "SELECT number, id, body, attempts FROM webhooks WHERE done IS NULL AND held = 0 "
            "AND due <= ? ORDER BY number LIMIT 100",
            (wall_s,),
        ).fetchall()

    def note_attempt(self, number: int, due: float, done: str | None) -> None:
        self.database.execute(
            "UPDATE webhooks SET attempts = attempts + 1, due = ?, done = ? WHERE number = ?",
            (due, done, number),
        )

    def release_webhooks(self, *, is_reversed: bool) -> None:
        """Held ones go out; reversed, the newest gets the lowest number."""
        with self.change():
            numbers = [
                row[0]
                for row in self.database.execute(
                    "SELECT number FROM webhooks WHERE held = 1 ORDER BY number"
                )
            ]
            top = self.database.execute("SELECT max(number) FROM webhooks").fetchone()[0] or 0
            for place, number in enumerate(reversed(numbers) if is_reversed else numbers, 1):
                self.database.execute(
                    "UPDATE webhooks SET held = 0, number = ? WHERE number = ?",
                    (top + place, number),
                )

    def webhooks(self) -> list[Document]:
        rows = self.database.execute(
            "SELECT id, body, held, attempts, done FROM webhooks ORDER BY number"
        )
        names = ("id", "body", "held", "attempts", "done")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def row(self, query: str, *parameters: Any) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self.database.execute(query, parameters).fetchone()
        return row

    def documents(self, query: str, *parameters: Any) -> list[Document]:
        return [json.loads(row[0]) for row in self.database.execute(query, parameters)]
