"""Names in ClickHouse: written from the outbox, gone after erasure."""

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from api.outbox.names import write_round
from api.reading.spend import Spend
from api.repair.recall import Recalled, recall_names
from api.rules.change import Control
from api.rules.erasure import erase_member
from api.rules.groups import create_group, delete_group, rename_group
from api.rules.members import NewMember, add_alias, create_member, find_by_address
from api.rules.memberships import live_group
from api.rules.websites import create_website
from api.storage.migrate import migrate
from api.storage.store import Store, database_url
from cli.members import erase_member as erase_from_command
from schemas.cycles import BillingCalendar
from tests.api.conftest import ADMIN, SECRET, Clock, new_control
from tests.api.rated import RatedRow, insert_rated
from tests.conftest import MakeSettings
from warehouse.connection import connect
from warehouse.migrations import migrate as migrate_warehouse
from warehouse.reports import spend_report


@pytest.fixture
def client(make_settings: MakeSettings, clickhouse: object) -> Any:
    settings = make_settings()
    migrate_warehouse(settings)
    opened = connect(settings)
    yield opened
    opened.close()


def rows(client: Any, statement: str) -> list[Any]:
    result: list[Any] = client.query(statement).result_rows
    return result


def test_names_follow_and_a_person_is_forgotten(
    sqlite_store: Store, clock: Clock, client: Any
) -> None:
    control: Control = new_control(sqlite_store, clock)
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Sales", "g1")
        create_group(change, "Lab", "g2")
        create_member(change, NewMember("ann@example.com", "Ann", member_id="u1"))
        create_website(change, "Shop", "g1", "web_1")
    assert write_round(sqlite_store, client, SECRET) == 5
    assert write_round(sqlite_store, client, SECRET) == 0
    assert rows(client, "SELECT name FROM organizations") == [("Acme",)]
    assert rows(client, "SELECT name, email FROM members") == [("Ann", "ann@example.com")]
    assert rows(client, "SELECT name FROM websites") == [("Shop",)]
    now = datetime.now(UTC)
    columns = ["organization_id", "event_id", "event_time", "member_id", "subject"]
    events = [["org_a", "e1", now, "u1", "ann@example.com"], ["org_a", "e2", now, "u2", "b@x.org"]]
    client.insert("usage_rated_rows", events, column_names=columns)
    with control.change("org_a", ADMIN) as change:
        rename_group(change, "g1", "Field sales")
        delete_group(change, "g2")
        erase_member(change, "u1")
    write_round(sqlite_store, client, SECRET)
    groups = "SELECT group_id, name, is_deleted FROM billing_groups ORDER BY group_id"
    assert [(row[0], row[1], bool(row[2])) for row in rows(client, groups)] == [
        ("g1", "Field sales", False),
        ("g2", "Lab", True),
    ]
    assert rows(client, "SELECT * FROM members") == []
    assert rows(client, "SELECT * FROM member_rows") == []
    subjects = rows(client, "SELECT subject FROM usage_rated ORDER BY event_id")
    assert subjects == [("u1",), ("b@x.org",)]


def test_erasing_empties_dead_letters_and_says_how_many(
    make_settings: MakeSettings, clock: Clock, client: Any
) -> None:
    settings = make_settings(alias_secret=SECRET.decode())
    store = Store(database_url(settings))
    migrate(store)
    control = new_control(store, clock)
    with control.change("org_a", ADMIN) as change:
        for name in ("ann", "ben"):
            create_member(change, NewMember(f"{name}@example.com", member_id=name))
    letters = [
        ["org_a", number, b64encode(b'{"subject":"%s@example.com"}' % name).decode()]
        for number, name in enumerate((b"ann", b"ben", b"Ann"))
    ]
    columns = ["organization_id", "offset", "value_base64"]
    client.insert("dead_letter_rows", letters[:2], column_names=columns)
    assert "The bytes of 1 dead letters" in erase_from_command(settings, "org_a", "ann")
    client.insert("dead_letter_rows", letters[2:], column_names=columns)
    with control.change("org_a", ADMIN) as change:
        erase_member(change, "ann")
    write_round(store, client, SECRET)
    kept = rows(client, "SELECT offset FROM dead_letters WHERE value_base64 != ''")
    assert kept == [(1,)]
    store.close()


def test_what_clickhouse_did_not_take_waits(sqlite_store: Store, clock: Clock, client: Any) -> None:
    class Away:
        def insert(self, *_: Any, **__: Any) -> None:
            raise OSError("away")

    control = new_control(sqlite_store, clock)
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Sales", "g1")
    with pytest.raises(OSError, match="away"):
        write_round(sqlite_store, Away(), SECRET)
    assert write_round(sqlite_store, client, SECRET) == 2


def test_spend_agrees_with_the_report_to_the_micro_credit(
    sqlite_store: Store, clock: Clock, make_settings: MakeSettings, client: Any
) -> None:
    control = new_control(sqlite_store, clock)
    with control.change("org_a", ADMIN) as change:
        for group_id in ("g1", "g2", "g3"):
            create_group(change, group_id.upper(), group_id)
    settings, month = make_settings(), datetime(2026, 11, 1, tzinfo=UTC)
    groups = ("g1", "g2", "g3", "group_unassigned", "")
    insert_rated(
        settings,
        [
            RatedRow(f"e{number}", f"u{number % 7}", groups[number % 5], month, 333_333 * number)
            for number in range(200)
        ],
    )
    with control.change("org_a", ADMIN) as change:
        delete_group(change, "g3")
    write_round(sqlite_store, client, SECRET)
    report = spend_report(client, "org_a", "2026-11", "group")
    spend = Spend(settings)
    cycle = BillingCalendar().cycle_at(month)
    ours = spend.by_group("org_a", cycle, {"g1", "g2"})
    by_member = spend.by_group_and_member("org_a", cycle, {"g1", "g2"})
    by_day = spend.by_group_and_day("org_a", cycle, {"g1", "g2"})
    spend.close()
    assert {row.id: row.amounts.cost_micro for row in report.rows} == {
        group: amount.micro for group, amount in ours.items()
    }
    for row in report.rows:
        assert row.amounts.money_pico == {"USD": ours[row.id].pico}
        assert sum(by_member[row.id].values()) == ours[row.id].pico
        assert by_day[row.id].total == ours[row.id]


def test_names_that_the_database_forgot_come_back(
    sqlite_store: Store, clock: Clock, client: Any, make_settings: MakeSettings
) -> None:
    control = new_control(sqlite_store, clock)
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Sales", "g1")
        create_member(change, NewMember("ann@example.com", "Ann", member_id="u1"))
        add_alias(change, "u1", "ann.other@example.com")
        add_alias(change, "u1", "ann.never.used@example.com")
        create_website(change, "Shop", "g1", "web_1")
    write_round(sqlite_store, client, SECRET)
    with sqlite_store.write() as session:
        # As an import leaves it.
        for statement in (
            "UPDATE billing_groups SET name = id, name_folded = id",
            "UPDATE members SET name = id, email = NULL, email_folded = NULL",
            "UPDATE websites SET name = id",
            "DELETE FROM member_aliases",
        ):
            session.execute(text(statement))
    insert_rated(
        make_settings(), [RatedRow("e1", "u1", "g1", clock(), 1, subject="Ann.Other@example.com")]
    )
    recalled = recall_names(sqlite_store, client, {"org_a"}, SECRET)
    assert recalled == Recalled(names=3, aliases=2, unknown_aliases=1)
    again = recall_names(sqlite_store, client, {"org_a"}, SECRET)
    assert again == Recalled(names=0, aliases=0, unknown_aliases=1)
    with control.change("org_a", ADMIN) as change:
        member = find_by_address(change, "ANN@example.com")
        assert member is not None
        assert (member.id, member.name, member.email) == ("u1", "Ann", "ann@example.com")
        assert live_group(change, "g1").name == "Sales"
