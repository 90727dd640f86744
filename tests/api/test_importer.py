"""`metering facts import` after an older backup, and erasing a person."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from sqlalchemy import delete, select, text
from typer.testing import CliRunner

from api.errors import Refused
from api.outbox import compare
from api.outbox.facts import FactPublisher
from api.repair.importer import import_facts
from api.rules.aliases import aliases_published
from api.rules.bulk_members import join_many, newcomer
from api.rules.change import Control
from api.rules.credits import NewGrant, grant
from api.rules.erasure import erase_member
from api.rules.groups import create_group, delete_group
from api.rules.members import (
    NewMember,
    add_alias,
    create_member,
    remove_alias,
    remove_member,
    update_member,
)
from api.rules.memberships import move_members
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.prices import NewPrice, set_default_price, set_price
from api.rules.websites import create_website
from api.storage.ledgers import (
    UNKNOWN_ORGANIZATION,
    Grant,
    OutboxFact,
    Price,
    PublishingHalt,
)
from api.storage.models import Member, MemberAlias, Organization, Website
from api.storage.store import Store
from cli import facts_import
from schemas import codec
from schemas.records import GroupCreated, MembershipRecord, PriceSet
from schemas.settings import Settings
from streams.kafka import client_options
from tests.api.conftest import ADMIN, SECRET, Clock, backup_of, new_control
from tests.api.seen import actions, facts, group, places, replayed_places
from tests.api.topic import read_all


async def publish(settings: Settings, store: Store, clock: Clock) -> None:
    publisher = FactPublisher(settings, store, clock)
    try:
        await publisher.open()
        while await publisher.publish_round():
            pass
    finally:
        await publisher.close()


def before_backup(control: Control) -> None:
    with control.change("org_a", ADMIN) as change:
        create_group(change, "One", "g1")
        create_member(change, NewMember("ann@example.com", member_id="ann"))


def after_backup(control: Control) -> None:
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Two", "g2")
        create_group(change, "Three", "g3")
        create_member(change, NewMember("ben@example.com", member_id="ben"))
        create_member(change, NewMember("cas@example.com", member_id="cas"))
        move_members(change, {"ann": "g2", "ben": "g1", "cas": "g3"})
        create_website(change, "Shop", "g2", "web_1")
        set_price(change, NewPrice("ai.tokens", 5))
        grant(change, NewGrant("group", "g2", "one_time", 100, "admin:x", grant_id="gr1"))
        delete_group(change, "g3")
        remove_member(change, "ben")
    with control.transaction(ADMIN) as transaction:
        create_organization(transaction, "New", OrganizationSettings(currency="EUR"), "org_new")


async def restored_from_backup(
    settings: Settings, store: Store, clock: Clock
) -> tuple[Control, Control]:
    """The control plane that went on, and the one on the restored backup."""
    control = new_control(store, clock)
    before_backup(control)
    await publish(settings, store, clock)
    old = backup_of(store)
    after_backup(control)
    await publish(settings, store, clock)
    return control, Control(old, clock, control.alias_secret)


async def test_the_database_learns_what_it_forgot(
    store: Store, clock: Clock, settings: Settings
) -> None:
    lost, back = await restored_from_backup(settings, store, clock)
    await publish(settings, back.store, clock)
    with back.store.read() as session:
        codes = {halt.organization_id: halt.code for halt in compare.halts(session)}
    assert codes == {"org_a": compare.TOPIC_AHEAD, "org_new": UNKNOWN_ORGANIZATION}
    imported = await import_facts(settings, back.store, clock, SECRET, ADMIN)
    assert imported.organizations == {"org_a", "org_new"}
    assert actions(back)[-1] == actions(back, "org_new")[-1] == "facts.import"
    assert facts(back) == facts(lost)
    assert places(back) == places(lost) == replayed_places(back) == {"ann": "g2"}
    assert group(back, "g3").deleted_at is not None
    with back.store.read() as session:
        assert session.get_one(Website, ("org_a", "web_1")).group_id == "g2"
        assert session.get_one(Grant, ("org_a", "gr1")).amount_micro == 100
        assert not session.get_one(Member, ("org_a", "ben")).active
    with back.change("org_a", ADMIN) as change:
        create_group(change, "Next", "g4")
    await publish(settings, back.store, clock)
    versions = [
        record.version
        for _, value in await read_all(settings, "memberships")
        if (record := codec.decode_membership(value)).organization_id == "org_a"
    ]
    assert versions == list(range(1, len(facts(back)) + 1))
    back.store.close()


async def test_what_was_changed_on_the_backup_moves_behind(
    store: Store, clock: Clock, settings: Settings
) -> None:
    lost, back = await restored_from_backup(settings, store, clock)
    clock.forward(minutes=5)
    with back.change("org_a", ADMIN) as change:
        move_members(change, {"ann": "g1"})
    imported = await import_facts(settings, back.store, clock, SECRET, ADMIN)
    assert imported.moved_behind == 1
    with back.store.read() as session:
        assert session.scalar(select(PublishingHalt)) is None
    await publish(settings, back.store, clock)
    assert facts(back)[:-1] == facts(lost)
    assert places(back) == replayed_places(back) == {"ann": "g1"}
    back.store.close()


async def test_an_import_with_nothing_to_learn_changes_nothing(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    before_backup(control)
    before = facts(control)
    assert (await import_facts(settings, store, clock, SECRET, ADMIN)).learnt == 0
    await publish(settings, store, clock)
    assert (await import_facts(settings, store, clock, SECRET, ADMIN)).learnt == 0
    assert facts(control) == before


async def test_facts_that_are_nowhere_cannot_be_repaired(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    before_backup(control)
    with store.write() as session:
        session.execute(delete(OutboxFact).where(OutboxFact.version < 3))
    await publish(settings, store, clock)
    with store.write() as session:
        for table in ("outbox", "topic_positions"):
            session.execute(text(f"DELETE FROM {table}"))
    imported = await import_facts(settings, store, clock, SECRET, ADMIN)
    assert "2 facts are in neither" in imported.unrepairable["org_a"]
    with pytest.raises(Refused, match="topic_ahead"), control.change("org_a", ADMIN):
        pass


async def test_what_somebody_else_wrote_is_not_obeyed(
    store: Store, clock: Clock, settings: Settings
) -> None:
    _, back = await restored_from_backup(settings, store, clock)
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    stray = MembershipRecord("org_ghost", 1, clock(), clock(), GroupCreated("g"))
    topic = settings.topic("memberships")
    await producer.send_and_wait(topic, codec.encode(stray), key=b"org_ghost")
    await producer.stop()
    await publish(settings, back.store, clock)
    imported = await import_facts(settings, back.store, clock, SECRET, ADMIN)
    assert imported.organizations == {"org_a", "org_new"}
    assert "does not begin with its creation" in imported.unrepairable["org_ghost"]
    again = await import_facts(settings, back.store, clock, SECRET, ADMIN)
    assert (again.learnt, set(again.unrepairable)) == (0, {"org_ghost"})
    forgotten = frozenset({"org_ghost"})
    last = await import_facts(settings, back.store, clock, SECRET, ADMIN, forgotten)
    assert not last.unrepairable
    await publish(settings, back.store, clock)
    with back.store.read() as session:
        assert compare.halts(session) == []
        assert session.get(Organization, "org_ghost") is None
    back.store.close()


async def test_the_default_book_comes_back_and_everybody_hears_of_it(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    with control.transaction(ADMIN) as transaction:
        set_default_price(transaction, NewPrice("ai.tokens", 3))
    await publish(settings, store, clock)
    back = Control(backup_of(store), clock, SECRET)
    clock.forward(days=1)
    for price in (NewPrice("ai.tokens", 4), NewPrice("ai.images", 7), NewPrice("ai.tokens", 4)):
        with control.transaction(ADMIN) as transaction:
            set_default_price(transaction, price)
    with control.transaction(ADMIN) as transaction:
        create_organization(transaction, "New", OrganizationSettings(), "org_new")
    await publish(settings, store, clock)
    with back.transaction(ADMIN) as transaction:
        create_organization(transaction, "Late", OrganizationSettings(), "org_late")
    assert default_prices(back, "org_late") == [("ai.tokens", 3)]

    imported = await import_facts(settings, back.store, clock, SECRET, ADMIN)
    assert (imported.default_prices, imported.waiting_facts) == (3, 3)
    assert default_book(back) == default_book(control)
    assert facts(back) == facts(control)
    assert sorted(default_prices(back, "org_late")) == sorted(default_prices(control, "org_a"))
    assert (await import_facts(settings, back.store, clock, SECRET, ADMIN)).default_prices == 0
    with back.transaction(ADMIN) as transaction:
        create_organization(transaction, "Newest", OrganizationSettings(), "org_newest")
    assert default_prices(back, "org_newest") == default_prices(control, "org_a")
    await publish(settings, back.store, clock)
    back.store.close()


def default_book(control: Control) -> list[tuple[object, ...]]:
    with control.store.read() as session:
        rows = session.execute(
            select(Price.meter, Price.micro_per_million_units, Price.effective_at)
            .where(Price.organization_id.is_(None))
            .order_by(Price.id)
        )
        return [tuple(row) for row in rows]


def default_prices(control: Control, organization_id: str) -> list[tuple[str, int]]:
    """What the facts tell the organization of the default book."""
    return [
        (record.fact.meter, record.fact.micro_per_million_units)
        for record in facts(control, organization_id)
        if isinstance(record.fact, PriceSet) and record.fact.book == "default"
    ]


def aliases(control: Control) -> dict[str, str]:
    with control.store.read() as session:
        return dict(session.execute(select(MemberAlias.alias, MemberAlias.member_id)).all())


def alias_owners(control: Control) -> dict[str, str]:
    with control.store.read() as session:
        return aliases_published(session, "org_a")


async def with_forgotten_aliases(settings: Settings, store: Store, clock: Clock) -> Control:
    """A restored backup after an import: two aliases changed hands, two are known as hashes."""
    control = new_control(store, clock)
    with control.change("org_a", ADMIN) as change:
        for name in ("ann", "ben"):
            create_member(change, NewMember(f"{name}@example.com", member_id=name))
        for alias in ("a1@example.com", "a2@example.com"):
            add_alias(change, "ann", alias)
    await publish(settings, store, clock)
    back = Control(backup_of(store), clock, SECRET)
    with control.change("org_a", ADMIN) as change:
        remove_alias(change, "ann", "a1@example.com")
        remove_alias(change, "ann", "a2@example.com")
        add_alias(change, "ben", "a2@example.com")
        add_alias(change, "ben", "b2@example.com")
        update_member(change, "ann", email="ann.new@example.com")
    await publish(settings, store, clock)
    imported = await import_facts(settings, back.store, clock, SECRET, ADMIN)
    assert imported.unknown_aliases == 2
    assert alias_owners(back) == alias_owners(control)
    return back


async def test_aliases_follow_the_facts(store: Store, clock: Clock, settings: Settings) -> None:
    back = await with_forgotten_aliases(settings, store, clock)
    known = {"ann@example.com": "ann", "ben@example.com": "ben", "a2@example.com": "ben"}
    assert aliases(back) == known
    there_were = len(facts(back))
    with back.change("org_a", ADMIN) as change:
        add_alias(change, "ben", "B2@example.com")
    assert len(facts(back)) == there_were, "the pipeline knows that already"
    with back.change("org_a", ADMIN) as change:
        add_alias(change, "ann", "a1@example.com")
    assert len(facts(back)) == there_were + 1
    assert aliases(back) == {**known, "B2@example.com": "ben", "a1@example.com": "ann"}
    back.store.close()


async def test_a_forgotten_alias_is_not_given_to_another(
    store: Store, clock: Clock, settings: Settings
) -> None:
    back = await with_forgotten_aliases(settings, store, clock)
    with pytest.raises(Refused, match="alias_taken"), back.change("org_a", ADMIN) as change:
        add_alias(change, "ann", "b2@example.com")
    with back.change("org_a", ADMIN) as change:
        create_member(change, NewMember("b2@example.com", member_id="cas"))
        newcomers = [newcomer("ann.new@example.com"), newcomer("dan@example.com")]
        assert join_many(change, newcomers) == newcomers[1:]
    owners = alias_owners(back)
    assert owners[codec.alias_hash(SECRET, "b2@example.com")] == "cas"
    assert owners[codec.alias_hash(SECRET, "ann.new@example.com")] == newcomers[0].id
    back.store.close()


def test_the_command_says_what_is_lost(
    sqlite_store: Store,
    clock: Clock,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    control = new_control(sqlite_store, clock)
    with control.change("org_a", ADMIN) as change:
        create_member(change, NewMember("ann@example.com", "Ann", member_id="ann"))
        add_alias(change, "ann", "a1@example.com")
    asyncio.run(publish(settings, sqlite_store, clock))
    with sqlite_store.write() as session:
        for table in ("topic_positions", "outbox", "member_aliases", "audit_log"):
            session.execute(text(f"DELETE FROM {table}"))
        session.execute(text("UPDATE members SET email = NULL, email_folded = NULL"))
    for name in ("kafka_bootstrap", "topic_prefix", "partitions", "data_dir"):
        monkeypatch.setenv(f"METERING_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.setenv("METERING_ALIAS_SECRET", SECRET.decode())
    monkeypatch.setenv("METERING_CLICKHOUSE_URL", "http://127.0.0.1:1")
    result = CliRunner().invoke(facts_import.app, ["import", "--yes"])
    assert result.exit_code == 0, result.output
    assert "4 facts of 1 organizations were learnt" in result.output
    assert "The addresses of 2 aliases are lost" in result.output


async def test_erasing_takes_the_forgotten_aliases_too(
    store: Store, clock: Clock, settings: Settings
) -> None:
    back = await with_forgotten_aliases(settings, store, clock)
    with back.change("org_a", ADMIN) as change:
        erase_member(change, "ben")
    assert set(alias_owners(back).values()) == {"ann"}
    back.store.close()


def test_an_erased_person_is_nowhere_in_the_database(control: Control) -> None:
    with control.change("org_a", ADMIN) as change:
        create_group(change, "One", "g1")
        create_member(change, NewMember("ann.smith@example.com", "Ann Smith", member_id="u1"))
        add_alias(change, "u1", "smith@example.org")
        move_members(change, {"u1": "g1"})
    with control.change("org_a", ADMIN) as change:
        erase_member(change, "u1")
        erase_member(change, "u1")
    assert places(control) == {} == replayed_places(control)
    with control.store.read() as session:
        tables = (
            session.execute(
                text(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                    if control.store.is_sqlite
                    else "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
                )
            )
            .scalars()
            .all()
        )
        for table in tables:
            content = repr(session.execute(text(f"SELECT * FROM {table}")).all()).lower()
            assert "smith" not in content, table
