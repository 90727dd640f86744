"""`metering facts import` after an older backup, and erasing a person."""

import pytest
from sqlalchemy import delete, select, text

from api.outbox import compare
from api.outbox.facts import FactPublisher
from api.outbox.importer import Unrepairable, import_facts
from api.rules.change import Control
from api.rules.credits import NewGrant, NewPrice, grant, set_price
from api.rules.erasure import erase_member
from api.rules.groups import create_group, delete_group
from api.rules.members import NewMember, add_alias, create_member, remove_member
from api.rules.memberships import move_members
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.websites import create_website
from api.storage.ledgers import Grant, OutboxFact, PublishingHalt
from api.storage.models import Member, Website
from api.storage.store import Store
from schemas import codec
from schemas.settings import Settings
from tests.api.conftest import ADMIN, Clock, backup_of, new_control
from tests.api.seen import facts, group, places, replayed_places
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
    with pytest.raises(compare.Halt):
        await publish(settings, back.store, clock)
    done = await import_facts(settings, back.store, clock)
    assert done.organizations == {"org_a", "org_new"}
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
    done = await import_facts(settings, back.store, clock)
    assert done.moved_behind == 1
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
    assert (await import_facts(settings, store, clock)).learnt == 0
    await publish(settings, store, clock)
    assert (await import_facts(settings, store, clock)).learnt == 0
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
    with pytest.raises(Unrepairable):
        await import_facts(settings, store, clock)


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
