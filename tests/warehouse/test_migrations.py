"""Migrations are idempotent, never change once applied, and make exactly the contract's tables."""

from typing import Any

import msgspec
import pytest
from msgspec import structs
from pydantic import SecretStr

from deploy.embedded import EmbeddedClickHouse
from schemas.records import FactApplied, Posting, RatedEvent
from schemas.settings import Settings
from streams.decisions.ledger import closing_entry_id
from tests.conftest import MakeSettings
from tests.sinks.feed import posting
from tests.warehouse.conftest import Put
from warehouse.access import finance_statements, organization_reader_statements
from warehouse.connection import WarehouseError, connect
from warehouse.migrations import MigrationError, migrate, packaged_migrations, pending
from warehouse.statements import split_statements

READERS_SEE = [
    "usage_rated",
    "spend",
    "ledger",
    "dead_letters",
    "organizations",
    "billing_groups",
    "members",
    "websites",
    "memberships",
    "facts_applied",
    "spend_known_now",
    "billing_cycles",
    "pool_balances",
]


def test_a_second_run_applies_nothing(settings: Settings, client: Any) -> None:
    report = migrate(settings)

    assert report.applied == ()
    assert len(report.already_applied) == len(packaged_migrations())
    assert "no users made" in report.access


def test_every_statement_may_run_twice(client: Any) -> None:
    for migration in packaged_migrations():
        for statement in split_statements(migration.sql):
            client.command(statement)


@pytest.mark.parametrize("view", READERS_SEE)
def test_readers_find_every_view_of_the_contract(client: Any, view: str) -> None:
    assert client.query(f"SELECT count() FROM {view}").result_rows == [(0,)]


@pytest.mark.parametrize(
    ("table", "record"),
    [
        ("usage_rated_rows", RatedEvent),
        ("ledger_rows", Posting),
        ("facts_applied_rows", FactApplied),
    ],
)
def test_a_table_has_the_columns_of_its_record(
    client: Any, table: str, record: type[msgspec.Struct]
) -> None:
    columns = [row[0] for row in client.query(f"DESCRIBE TABLE {table}").result_rows]

    assert sorted(columns) == sorted(record.__struct_fields__)


def test_a_changed_migration_is_refused_by_name(settings: Settings, client: Any) -> None:
    client.command("ALTER TABLE migrations UPDATE checksum = 'x' WHERE number = 1")

    with pytest.raises(MigrationError, match=r"0001_stored_tables.sql was applied with other"):
        migrate(settings)


def test_a_newer_database_is_refused() -> None:
    with pytest.raises(MigrationError, match="newer release"):
        pending(packaged_migrations(), {999: ("0999_later.sql", "x")})


def test_no_database_says_what_to_run(
    clickhouse: EmbeddedClickHouse, make_settings: MakeSettings
) -> None:
    with pytest.raises(WarehouseError, match="run `metering migrate`"):
        connect(make_settings())


def test_nobody_there_is_one_clear_error(make_settings: MakeSettings) -> None:
    with pytest.raises(WarehouseError, match="does not answer"):
        connect(make_settings(clickhouse_url="http://127.0.0.1:1"))


def test_statements_end_at_semicolons_outside_text_only() -> None:
    sql = "SELECT ';' -- a; comment\n; /* ; */ SELECT `a;b`, 'it''s \\' ;';\n\n;"

    assert split_statements(sql) == ["SELECT ';'", "SELECT `a;b`, 'it''s \\' ;'"]


def test_access_statements_are_ones_that_clickhouse_parses(client: Any, settings: Settings) -> None:
    """The embedded engine stores no users, but its parser is the server's."""
    secret = settings.model_copy(update={"clickhouse_finance_password": SecretStr("it's \\ x")})
    statements = [
        *finance_statements(secret),
        *organization_reader_statements(secret, "org'7", "reader`7", "pw"),
    ]
    for statement in statements:
        client.query(f"EXPLAIN AST {statement}")


def test_the_finance_user_reads_all_views_and_writes_nothing(
    client: Any, settings: Settings, clickhouse: EmbeddedClickHouse
) -> None:
    reader = clickhouse.reader
    finance = connect(
        settings.model_copy(
            update={
                "clickhouse_user": reader.name,
                "clickhouse_password": SecretStr(reader.password),
            }
        )
    )
    for view in READERS_SEE:
        assert finance.query(f"SELECT count() FROM {view}").result_rows == [(0,)]
    for statement in (
        "INSERT INTO organization_rows VALUES ('o', 1, 'n', now())",
        "DROP VIEW spend",
        "ALTER TABLE usage_rated_rows DELETE WHERE 1",
        "CREATE TABLE mine (x Int8) ENGINE = Memory",
        "TRUNCATE TABLE ledger_rows",
    ):
        with pytest.raises(Exception, match=r"readonly|READONLY"):
            finance.command(statement)
    finance.close()


def test_entries_that_ran_together_get_ids_of_their_own(client: Any, put: Put) -> None:
    """As they were written before; the same facts applied again replace them."""
    old = [
        ("a", "b", "group-deleted:a:b"),
        ("a", "b:c", "group-deleted:a:b:c"),
        ("x:ü", "c", "group-deleted:x:ü:c"),
        ("x:ü", "", "group-debt:x:ü"),
    ]
    rows = [
        posting(leg, entry_id=entry_id, leg=leg, kind="group_deleted", pool_id=pool, grant_id=grant)
        for pool, grant, entry_id in old
        for leg in (0, 1)
    ]
    put("ledger_rows", rows)
    statements = split_statements(packaged_migrations()[4].sql)
    for statement in statements + statements:
        client.command(statement)
    again = [
        structs.replace(row, entry_id=closing_entry_id(row.pool_id, row.grant_id))
        for row in rows
        if row.grant_id
    ]
    put("ledger_rows", again)

    result = client.query("SELECT pool_id, grant_id, entry_id, count() FROM ledger GROUP BY ALL")
    assert sorted(result.result_rows) == [
        ("a", "b", "group-deleted:a:b", 2),
        ("a", "b:c", "group-deleted:a:b:c", 2),
        ("x:ü", "", "group-debt:x:ü", 2),
        ("x:ü", "c", "group-closed:3:x:ü:c", 2),
    ]
