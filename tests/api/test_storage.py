"""The database holds the constraints, and its tables are those of the migrations."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from api.errors import Refused
from api.rules.change import Control
from api.rules.groups import create_group, rename_group
from api.rules.members import NewMember, create_member
from api.storage.base import Base, rfc3339
from api.storage.ledgers import ApiKey
from api.storage.migrate import alembic_config, migrate
from api.storage.models import BillingGroup, Membership, Organization
from api.storage.revision import head, is_current
from api.storage.store import Store
from api.web.shapes.common import iso
from tests.api.conftest import ADMIN
from tests.small_disk import small_disk

NOW = datetime(2026, 11, 10, tzinfo=UTC)


def test_the_migrations_make_exactly_the_tables_of_the_models(store: Store) -> None:
    migrate(store)
    assert is_current(store)
    assert head() == ScriptDirectory.from_config(alembic_config()).get_current_head()
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_a_full_disk_is_told_as_what_it_is(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        store = Store(f"sqlite:///{disk.path / 'control-plane.sqlite'}")
        migrate(store)
        disk.fill()
        full = pytest.raises(Refused, match="The database has no room on its disk")
        with full, store.write() as session:
            session.execute(text("CREATE TABLE more AS SELECT zeroblob(500000) AS bytes"))
        store.close()


def test_times_come_back_in_utc(store: Store, control: Control) -> None:
    moment = datetime(2026, 11, 10, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5)))
    with store.write() as session:
        organization = session.get_one(Organization, "org_a")
        organization.updated_at = moment
    with store.read() as session:
        assert session.get_one(Organization, "org_a").updated_at == moment
        assert session.get_one(Organization, "org_a").updated_at.tzinfo == UTC


@pytest.mark.parametrize("microsecond", [0, 1, 999, 1_000, 123_999, 999_999])
def test_the_database_writes_times_as_answers_show_them(
    store: Store, control: Control, microsecond: int
) -> None:
    moment = datetime(2026, 11, 10, 23, 59, 59, microsecond, tzinfo=timezone(timedelta(hours=5)))
    with store.write() as session:
        session.get_one(Organization, "org_a").updated_at = moment
    with store.read() as session:
        known = session.get_one(Organization, "org_a").updated_at
        assert session.scalar(select(rfc3339(Organization.updated_at))) == iso(known)


def test_a_member_has_one_group_by_the_primary_key(store: Store, control: Control) -> None:
    with control.change("org_a", ADMIN) as change:
        one, two = create_group(change, "One"), create_group(change, "Two")
        member = create_member(change, NewMember("ann@example.com"))
    row = {"organization_id": "org_a", "member_id": member.id, "joined_at": NOW, "how": "api"}
    with store.write() as session:
        session.execute(insert(Membership).values(group_id=one.id, **row))
    with pytest.raises(IntegrityError), store.write() as session:
        session.execute(insert(Membership).values(group_id=two.id, **row))


@pytest.mark.parametrize(
    "changed",
    [
        {"name_folded": "straße".casefold()},
        {"id": "group_unassigned"},
        {"name_folded": "unassigned"},
        {"configured_by": "magic"},
        {"organization_id": "org_nobody"},
        {"directory_group_id": "dir_group_of_nobody", "synced_at": NOW},
        {"synced_at": NOW},
    ],
)
def test_what_cannot_be_a_group(store: Store, control: Control, changed: dict[str, object]) -> None:
    with control.change("org_a", ADMIN) as change:
        create_group(change, "STRASSE")
    row: dict[str, object] = {
        "organization_id": "org_a",
        "id": "group_x",
        "name": "x",
        "name_folded": "x",
        "configured_by": "api",
        "created_at": NOW,
        "updated_at": NOW,
    }
    with pytest.raises(IntegrityError), store.write() as session:
        session.execute(insert(BillingGroup).values(**row | changed))


@pytest.mark.parametrize(("scope", "bound"), [("operator", True), ("admin", False)])
def test_keys_are_bound_as_their_scope_says(
    store: Store, control: Control, scope: str, bound: bool
) -> None:
    with pytest.raises(IntegrityError), store.write() as session:
        session.add(
            ApiKey(
                id="key_x",
                organization_id="org_a" if bound else None,
                scope=scope,
                name="x",
                secret_hash="x",
                hint="x",
                created_at=NOW,
                expires_at=NOW,
            )
        )


def test_a_failed_write_leaves_nothing(store: Store, control: Control) -> None:
    with pytest.raises(Refused), control.change("org_a", ADMIN) as change:
        rename_group(change, create_group(change, "Gone").id, "Unassigned")
    with store.read() as session:
        for table in ("billing_groups", "group_names"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0
        assert session.get_one(Organization, "org_a").memberships_version == 1


def test_a_read_is_one_snapshot(store: Store, control: Control) -> None:
    with store.read() as session:
        before = session.scalar(select(Organization.name))
        with control.change("org_a", ADMIN) as change:
            change.organization.name = "Renamed"
        session.expire_all()
        assert session.scalar(select(Organization.name)) == before == "Acme"


def test_a_pool_that_is_used_up_is_an_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.storage.store.POOL_WAIT_S", 0.01)
    for name in ("READS_AT_ONCE", "SQLITE_READS_AT_ONCE"):
        monkeypatch.setattr(f"api.storage.store.{name}", 1)
    small = Store(store.url)
    with small.read() as first:
        first.execute(text("SELECT 1"))
        with pytest.raises(Refused) as refused, small.read() as second:
            second.execute(text("SELECT 1"))
    assert refused.value.status == 503
    assert "Retry-After" in refused.value.headers
    small.close()


def test_the_database_is_its_owners(tmp_path: Path) -> None:
    former = os.umask(0o022)
    try:
        opened = Store(f"sqlite:///{tmp_path / 'control-plane.sqlite'}")
        migrate(opened)
        with opened.write() as session:
            session.execute(text("DELETE FROM idempotency_keys"))
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(former)
    opened.close()
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}, modes


def test_another_process_that_comes_and_goes_leaves_the_log_alone(tmp_path: Path) -> None:
    """SQLite's last connection removes the write-ahead log. A process that had lost its locks was
    not seen by the next one, which took the log away from under it; what was written from then on
    was in a file without a name."""
    path = tmp_path / "control-plane.sqlite"
    store = Store(f"sqlite:///{path}")
    look = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
        "print(connection.execute('SELECT count(*) FROM seen').fetchone()[0]); connection.close()"
    )

    def rows_that_others_see() -> int:
        printed = subprocess.run(
            [sys.executable, "-c", look, str(path)], capture_output=True, text=True, check=True
        )
        return int(printed.stdout)

    with store.write() as session:
        session.execute(text("CREATE TABLE seen (n INTEGER)"))
    # Now the connections that read are opened, beside the one that has written.
    with store.read() as session:
        assert session.execute(text("SELECT count(*) FROM seen")).scalar_one() == 0
    assert rows_that_others_see() == 0
    for number in range(3):
        with store.write() as session:
            session.execute(text("INSERT INTO seen VALUES (1)"))
        assert rows_that_others_see() == number + 1
    store.close()


def test_keys_that_were_made_for_ever_end_a_year_after_the_migration(empty_database: str) -> None:
    opened = Store(empty_database)
    config = alembic_config()
    with opened.engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        connection.execute(
            text(
                "INSERT INTO api_keys (id, scope, name, secret_hash, hint, created_at) "
                "VALUES ('key_1', 'operator', 'x', 'h', 'x', :now)"
            ),
            {"now": "2026-11-10 00:00:00.000000"},
        )
        connection.commit()
    before = datetime.now(UTC)
    migrate(opened)
    with opened.read() as session:
        lives = session.get_one(ApiKey, "key_1").expires_at - before
    assert timedelta(days=365) <= lives < timedelta(days=366)
    opened.close()
