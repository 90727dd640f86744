"""What the worker would refuse as too many is refused by the control plane first, and said."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from alembic import command
from sqlalchemy import event, func, select

from api.errors import Refused
from api.rules.bounds import (
    EXPIRED_GRANTS_COUNT_FOR,
    Fact,
    refuse_too_many,
    refuse_too_many_default_prices,
)
from api.rules.change import Change, Control
from api.rules.credits import NewGrant, adjust, grant, revoke
from api.rules.csv_files import read_rows
from api.rules.csv_plans import plan
from api.rules.groups import create_group
from api.rules.members import (
    NewMember,
    add_alias,
    create_member,
    deactivate_member,
    get_member,
    reactivate_member,
    remove_alias,
    remove_member,
)
from api.rules.memberships import move_members
from api.rules.organizations import OrganizationSettings, change_settings
from api.rules.prices import NewPrice, set_default_price, set_price
from api.rules.websites import create_website, update_website
from api.storage.bulk import insert_rows
from api.storage.ledgers import Grant, OutboxFact, Price
from api.storage.migrate import alembic_config
from api.storage.models import Member, Organization
from api.storage.store import Store
from schemas import codec, topics
from schemas.bounds import CHANGES_MAX, POOL_GRANTS_MAX
from schemas.records import UNASSIGNED, Adjusted, MemberAssigned
from tests.api.conftest import ADMIN, SECRET, Clock, new_control

ALIAS: Final = "ada@home.example"


@pytest.fixture
def team(control: Control) -> Control:
    """A group `a`; a member `ada` with two addresses, and a website `web_3`, in no group."""
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Research", "a")
        create_member(change, NewMember("ada@example.com", member_id="ada"))
        add_alias(change, "ada", ALIAS)
        create_website(change, "Shop", website_id="web_3")
        set_price(change, NewPrice("ai.tokens", 1))
    return control


def change_until(control: Control, subject: str, number: int, topic: str) -> None:
    """As if what this is about had been changed so often."""
    with control.store.write() as session:
        organization = session.get_one(Organization, "org_a")
        of_it = select(func.count()).select_from(OutboxFact).where(OutboxFact.subject == subject)
        column = f"{topic}_version"
        version = getattr(organization, column)
        missing = number - (session.scalar(of_it) or 0)
        rows = [
            {
                "organization_id": "org_a",
                "topic": topic,
                "version": version + each + 1,
                "subject": subject,
                "payload": b"",
                "created_at": control.clock(),
            }
            for each in range(missing)
        ]
        insert_rows(session, OutboxFact, rows)
        setattr(organization, column, version + missing)


def refused(control: Control, change_it: Callable[[Change], Any]) -> Refused:
    """The refusal, after which nothing has changed."""
    with control.store.read() as session:
        before = session.scalar(select(func.count()).select_from(OutboxFact))
    with pytest.raises(Refused) as error, control.change("org_a", ADMIN) as change:
        change_it(change)
    with control.store.read() as session:
        assert session.scalar(select(func.count()).select_from(OutboxFact)) == before
    assert error.value.status == 409
    assert error.value.what_to_do
    return error.value


CHANGES: Final[dict[str, tuple[str, Callable[[Change], Any], Callable[[Change], Any], str]]] = {
    "member": (
        "member:ada",
        lambda change: move_members(change, {"ada": "a"}),
        lambda change: move_members(change, {"ada": UNASSIGNED}),
        "member_id",
    ),
    "website": (
        "website:web_3",
        lambda change: update_website(change, "web_3", group_id="a"),
        lambda change: update_website(change, "web_3", group_id=UNASSIGNED),
        "website_id",
    ),
    "price": (
        "organization_price:ai.tokens",
        lambda change: set_price(change, NewPrice("ai.tokens", 2)),
        lambda change: set_price(change, NewPrice("ai.tokens", 3)),
        "meter",
    ),
    "settings": (
        "settings",
        lambda change: change_settings(change, None, OrganizationSettings(currency="EUR")),
        lambda change: change_settings(change, None, OrganizationSettings(currency="CHF")),
        "",
    ),
}
"""What the outbox calls it, the last change and the one beyond, and what the refusal names."""


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_too_often_changes_no_more(team: Control, what: str) -> None:
    subject, last, one_more, where = CHANGES[what]
    change_until(team, subject, CHANGES_MAX - 1, topics.MEMBERSHIPS)
    with team.change("org_a", ADMIN) as change:
        last(change)
    error = refused(team, one_more)
    assert (error.code, error.where) == ("too_many_changes", where)
    assert f"{CHANGES_MAX} times" in error.message
    with team.change("org_a", ADMIN) as change:
        create_group(change, "Others go on", "b")


def test_many_changes_of_one_request_are_counted_together(team: Control) -> None:
    change_until(team, "member:ada", CHANGES_MAX - 1, topics.MEMBERSHIPS)

    def there_and_back(change: Change) -> None:
        move_members(change, {"ada": "a"})
        move_members(change, {"ada": UNASSIGNED})

    assert refused(team, there_and_back).code == "too_many_changes"


def test_whoever_was_moved_too_often_can_still_leave(team: Control) -> None:
    change_until(team, "member:ada", CHANGES_MAX, topics.MEMBERSHIPS)
    with team.change("org_a", ADMIN) as change:
        deactivate_member(change, get_member(change, "ada"))
    error = refused(team, lambda change: reactivate_member(change, get_member(change, "ada")))
    assert error.code == "too_many_changes"
    with team.change("org_a", ADMIN) as change:
        remove_member(change, "ada")
    with team.store.read() as session:
        assert session.get_one(Member, ("org_a", "ada")).removed_at is not None


def test_a_dry_run_of_a_file_says_who_was_moved_too_often(team: Control) -> None:
    change_until(team, "member:ada", CHANGES_MAX - 1, topics.MEMBERSHIPS)
    rows = read_rows(b"group,email\nResearch,ada@example.com\n")
    with team.store.read() as session:
        assert not plan(session, "org_a", rows, create_members=False).refused
    change_until(team, "member:ada", CHANGES_MAX, topics.MEMBERSHIPS)
    with team.store.read() as session:
        (row,) = plan(session, "org_a", rows, create_members=False).refused
    assert row.why == f"The member 'ada' has been moved {CHANGES_MAX} times."


def test_an_alias_that_changed_too_often_can_still_be_taken_away(team: Control) -> None:
    subject = f"alias:{codec.alias_hash(SECRET, ALIAS)}"
    change_until(team, subject, CHANGES_MAX, topics.MEMBERSHIPS)
    with team.change("org_a", ADMIN) as change:
        remove_alias(change, "ada", ALIAS)
    error = refused(team, lambda change: add_alias(change, "ada", ALIAS))
    assert (error.code, error.where) == ("too_many_changes", "alias")


def test_the_default_book_has_its_own_bound(team: Control) -> None:
    with team.store.write() as session:
        row = {
            "organization_id": None,
            "meter": "ai.tokens",
            "micro_per_million_units": 1,
            "effective_at": team.clock(),
            "created_at": team.clock(),
        }
        insert_rows(session, Price, [row] * CHANGES_MAX)
    with pytest.raises(Refused) as error, team.transaction(ADMIN) as transaction:
        set_default_price(transaction, NewPrice("ai.tokens", 2))
    assert (error.value.code, error.value.where) == ("too_many_changes", "meter")
    with team.transaction(ADMIN) as transaction:
        set_default_price(transaction, NewPrice("seats.minutes", 2))


def fill_pool(control: Control, number: int, **given: Any) -> None:
    """As if so many grants had been given to group `a`."""
    with control.store.write() as session:
        row = {
            "organization_id": "org_a",
            "pool_kind": "group",
            "pool_id": "a",
            "kind": "one_time",
            "amount_micro": 5,
            "revoked_micro": 0,
            "source": "admin:x",
            "effective_at": control.clock(),
            "expires_at": None,
            "awaiting_payment": False,
            "created_at": control.clock(),
            **given,
        }
        rows = [{**row, "id": f"{len(given)}-{each}"} for each in range(number)]
        insert_rows(session, Grant, rows)
        session.get_one(Organization, "org_a").credits_version += number


def give(change: Change, grant_id: str | None = None, pool_id: str = "a") -> Grant:
    return grant(change, NewGrant("group", pool_id, "one_time", 5, "admin:x", grant_id=grant_id))


def test_a_pool_takes_no_more_grants_than_the_worker_does(team: Control) -> None:
    fill_pool(team, POOL_GRANTS_MAX - 2)
    with team.change("org_a", ADMIN) as change:
        give(change)
        adjust(change, "group", "a", 5, "a gift")
    error = refused(team, give)
    assert (error.code, error.where) == ("too_many_grants", "pool_id")
    assert f"{POOL_GRANTS_MAX} grants" in error.message
    assert refused(team, lambda change: adjust(change, "group", "a", 5, "x")).code == error.code
    with team.change("org_a", ADMIN) as change:
        create_group(change, "Another", "b")
        give(change, pool_id="b")
        adjust(change, "group", "a", -5, "taken back")
        revoke(change, "0-7", 5, "refund")
        give(change, "in the place of the revoked one".replace(" ", "-"))
    assert refused(team, give).code == "too_many_grants"


def test_grants_that_expired_long_ago_make_place(team: Control, clock: Clock) -> None:
    expires_at = clock() + timedelta(days=1)
    fill_pool(team, POOL_GRANTS_MAX, expires_at=expires_at)
    clock.now = expires_at + EXPIRED_GRANTS_COUNT_FOR - timedelta(seconds=1)
    assert refused(team, give).code == "too_many_grants"
    clock.forward(seconds=2)
    with team.change("org_a", ADMIN) as change:
        give(change)


def test_what_is_counted_is_looked_up_in_an_index(sqlite_store: Store, clock: Clock) -> None:
    new_control(sqlite_store, clock)
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    with sqlite_store.read() as session:
        event.listen(sqlite_store.engine, "before_cursor_execute", note)
        said: list[Fact] = [Adjusted("group", "a", 5, "x"), MemberAssigned("ada", "a", "api")]
        refuse_too_many(session, "org_a", said, clock())
        refuse_too_many_default_prices(session, "ai.tokens")
        event.remove(sqlite_store.engine, "before_cursor_execute", note)
        plans = [
            session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            for statement, parameters in asked
        ]
        told = [" ".join(str(row[-1]) for row in plan) for plan in plans]
    used = ["ix_outbox_subject", "ix_grants_live", "ix_outbox_subject", "ix_prices_book"]
    assert len(told) == len(used)
    for lookup, index in zip(told, used, strict=True):
        assert f"USING INDEX {index}" in lookup or f"USING COVERING INDEX {index}" in lookup


def test_the_migration_names_what_older_facts_are_about(store: Store, clock: Clock) -> None:
    control = new_control(store, clock)
    with control.transaction(ADMIN) as transaction:
        set_default_price(transaction, NewPrice("ai.tokens", 5))
        change = transaction.change("org_a")
        create_group(change, "Research", "a")
        create_member(change, NewMember("ada@example.com", member_id="ada"))
        move_members(change, {"ada": "a"})
        create_website(change, "Shop", website_id="web_3")
        set_price(change, NewPrice("ai.tokens", 1))
        change_settings(change, None, OrganizationSettings(currency="EUR"))
        give(change)
        adjust(change, "group", "a", 5, "x")
        adjust(change, "group", "a", -5, "x")
        remove_member(change, "ada")
    subjects = select(OutboxFact.id, OutboxFact.subject).order_by(OutboxFact.id)
    with store.read() as session:
        before = session.execute(subjects).all()
    assert {(subject or "none").partition(":")[0] for _, subject in before} == {
        "settings", "default_price", "member", "alias", "website", "organization_price",
        "adjustment", "none",
    }  # fmt: skip
    with store.engine.connect() as connection:
        for statement in (
            "DROP INDEX ix_outbox_subject",
            "DROP INDEX ix_grants_live",
            "ALTER TABLE outbox DROP COLUMN subject",
            "UPDATE alembic_version SET version_num = '0006'",
        ):
            connection.exec_driver_sql(statement)
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        connection.commit()
    with store.read() as session:
        assert session.execute(subjects).all() == before
