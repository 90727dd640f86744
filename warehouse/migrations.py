"""`metering migrate` for ClickHouse: numbered SQL files, each applied once, in order.

Every statement is idempotent: a run that was interrupted, or two at the same time, end in the same
tables. What was applied is kept with a checksum, because a changed file would otherwise leave two
installations that look alike and are not.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from schemas.settings import Settings
from warehouse.access import grant_access
from warehouse.connection import WarehouseError, connect
from warehouse.statements import quoted_name, split_statements

_FILE_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

_APPLIED_TABLE: Final = """
CREATE TABLE IF NOT EXISTS migrations
(
    number UInt16,
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY number
"""


class MigrationError(WarehouseError):
    """The files and what was applied contradict each other."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a run did; `access` is a sentence about users and grants."""

    applied: tuple[str, ...]
    already_applied: tuple[str, ...]
    access: str


def migrate(settings: Settings) -> MigrationReport:
    """Bring the database to the state of this release.

    Raises `MigrationError` when an applied file has changed or is gone, `WarehouseError` when
    ClickHouse cannot be used. Safe to repeat.
    """
    migrations = packaged_migrations()
    server = connect(settings, database="default")
    try:
        server.command(f"CREATE DATABASE IF NOT EXISTS {quoted_name(settings.clickhouse_database)}")
    finally:
        server.close()
    client = connect(settings)
    try:
        client.command(_APPLIED_TABLE)
        waiting = pending(migrations, _applied(client))
        for migration in waiting:
            _apply(client, migration)
        return MigrationReport(
            applied=tuple(migration.name for migration in waiting),
            already_applied=tuple(each.name for each in migrations if each not in waiting),
            access=grant_access(client, settings),
        )
    finally:
        client.close()


def packaged_migrations() -> list[Migration]:
    """The files of this release, by number; numbers are 1, 2, 3 … without gaps."""
    folder = resources.files("schemas") / "migrations" / "clickhouse"
    listed = []
    for file in folder.iterdir():
        matched = _FILE_NAME.fullmatch(file.name)
        if matched:
            listed.append(Migration(int(matched[1]), file.name, file.read_text(encoding="utf-8")))
    listed.sort(key=lambda migration: migration.number)
    if [migration.number for migration in listed] != list(range(1, len(listed) + 1)):
        raise MigrationError("the migrations are not numbered 1, 2, 3 … without gaps")
    return listed


def pending(migrations: list[Migration], applied: Mapping[int, tuple[str, str]]) -> list[Migration]:
    """What is still to be applied; `applied` maps a number to its name and checksum."""
    by_number = {migration.number: migration for migration in migrations}
    for number, (name, checksum) in sorted(applied.items()):
        migration = by_number.get(number)
        if migration is None:
            raise MigrationError(
                f"the database has migration {name}, which this release does not know: "
                "it was migrated by a newer release"
            )
        if migration.checksum != checksum:
            raise MigrationError(
                f"{migration.name} was applied with other content: applied migrations never "
                "change, so restore the file and put the change into a new one"
            )
    return [migration for migration in migrations if migration.number not in applied]


def _applied(client: Any) -> dict[int, tuple[str, str]]:
    rows = client.query("SELECT number, name, checksum FROM migrations FINAL").result_rows
    return {number: (name, checksum) for number, name, checksum in rows}


def _apply(client: Any, migration: Migration) -> None:
    for statement in split_statements(migration.sql):
        client.command(statement)
    client.insert(
        "migrations",
        [(migration.number, migration.name, migration.checksum)],
        column_names=("number", "name", "checksum"),
    )
