"""What the topics hold after crashes, outages and restored backups, on a real broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import REGISTRY
from sqlalchemy import select, update

from api.errors import Refused
from api.outbox import compare, metrics, service
from api.outbox.facts import FactPublisher
from api.outbox.service import Outbox
from api.repair.importer import import_facts
from api.rules.change import Control
from api.rules.groups import create_group
from api.rules.keys import Scope, create_key, revoke_key
from api.rules.members import NewMember, create_member
from api.rules.memberships import move_members
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.prices import NewPrice, set_default_price
from api.storage.ledgers import OutboxFact, PublishingHalt, TopicPosition
from api.storage.lock import PUBLISHING, work_lock
from api.storage.store import Store
from schemas import codec
from schemas.settings import Settings
from streams.kafka import client_options, home_partition
from tests.api.conftest import ADMIN, Clock, backup_of, new_control
from tests.api.seen import facts
from tests.api.topic import read_all


@asynccontextmanager
async def publisher(settings: Settings, store: Store, clock: Clock) -> AsyncIterator[FactPublisher]:
    opened = FactPublisher(settings, store, clock)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()


def grow(control: Control, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        with control.change("org_a", ADMIN) as change:
            create_group(change, f"Group {number}", f"group_{number}")


async def published(settings: Settings, organization_id: bytes = b"org_a") -> list[int]:
    records = await read_all(settings, "memberships")
    return [
        codec.decode_membership(value).version for key, value in records if key == organization_id
    ]


async def until_published(store: Store) -> None:
    """Until all is published of whoever is not halted."""
    async with asyncio.timeout(20):
        while waiting(store):  # noqa: ASYNC110 - another process could be the publisher
            await asyncio.sleep(0.005)


async def test_facts_arrive_in_order_and_once(
    store: Store, control: Control, clock: Clock, settings: Settings
) -> None:
    grow(control, 5)
    async with publisher(settings, store, clock) as opened:
        assert await opened.publish_round() == 6
        assert await opened.publish_round() == 0
        grow(control, 2, 5)
        assert await opened.publish_round() == 2
    assert await published(settings) == list(range(1, 9))
    values = [value for _, value in await read_all(settings, "memberships")]
    assert values == [codec.encode(record) for record in facts(control)]


async def test_what_was_sent_but_not_written_down_is_recognised(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    grow(control, 3)
    async with publisher(settings, store, clock) as opened:
        await opened.publish_round()
    # As a kill between the broker's acknowledgement and our own commit leaves it.
    with store.write() as session:
        session.execute(update(OutboxFact).values(published_at=None))
        session.execute(update(TopicPosition).values(next_offset=0))
    async with publisher(settings, store, clock) as opened:
        assert await opened.publish_round() == 0
    assert await published(settings) == [1, 2, 3, 4]


async def test_a_restored_backup_halts_the_organizations_that_went_on(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    with control.transaction(ADMIN) as transaction:
        create_organization(transaction, "Calm", OrganizationSettings(), "org_calm")
    grow(control, 2)
    async with publisher(settings, store, clock) as opened:
        await opened.publish_round()
    restored = backup_of(store)
    grow(control, 2, 2)
    async with publisher(settings, store, clock) as opened:
        await opened.publish_round()

    old = Control(restored, clock, control.alias_secret)
    outbox = Outbox(settings, restored, clock)
    await outbox.start()
    await asyncio.wait_for(outbox.first_look.wait(), 20)
    with pytest.raises(Refused, match="topic_ahead") as refused:
        grow(old, 1, 9)
    assert refused.value.status == 503
    with old.change("org_calm", ADMIN) as change:
        create_group(change, "Still", "group_still")
    outbox.wake()
    await until_published(restored)
    await outbox.stop()
    assert await published(settings, b"org_a") == [1, 2, 3, 4, 5]
    assert await published(settings, b"org_calm") == [1, 2]
    restored.close()


async def test_a_leaked_key_ends_while_its_organization_is_halted(
    control: Control, store: Store, clock: Clock
) -> None:
    with control.transaction(ADMIN) as transaction:
        key = create_key(transaction, Scope.ADMIN, "leaked", "org_a").key
    with store.write() as session:
        halt = compare.Halt("org_a", "memberships", compare.TOPIC_AHEAD, "ahead")
        compare.write_halts(session, [halt], clock())
    with control.transaction(ADMIN, "org_a") as transaction:
        revoke_key(transaction, key.id, "org_a")


async def test_a_partition_that_lost_records_halts_its_organizations(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    names = [f"org_{number}" for number in range(8)]
    for name in names:
        with control.transaction(ADMIN) as transaction:
            create_organization(transaction, name, OrganizationSettings(), name)
    at_home = [name for name in names if home_partition(name.encode(), 2) == 0]
    assert 0 < len(at_home) < len(names)
    with store.write() as session:
        compare.keep_position(session, settings.topic("memberships"), 0, 100)
    async with publisher(settings, store, clock) as opened:
        halted = {halt.organization_id for halt in opened.halts}
        assert halted & set(names) == set(at_home)
        assert "lost data" in opened.halts[0].message
        while await opened.publish_round():
            pass
    for name in names:
        assert await published(settings, name.encode()) == ([] if name in at_home else [1])


async def test_an_unknown_organization_in_the_topic_halts_nobody(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    async with publisher(settings, store, clock) as opened:
        await opened.publish_round()
        producer = AIOKafkaProducer(**client_options(settings))
        await producer.start()
        topic = settings.topic("memberships")
        await producer.send_and_wait(topic, b"not a fact", key=b"org_a")
        grow(control, 1)
        assert await opened.publish_round() == 1
        foreign = msgspec.structs.replace(facts(control)[0], organization_id="org_b")
        for _ in range(2):
            await producer.send_and_wait(topic, codec.encode(foreign), key=b"org_b")
        await producer.stop()
        grow(control, 1, 1)
        assert await opened.publish_round() == 1
        assert [halt.organization_id for halt in opened.halts] == ["org_b"]
    with store.read() as session:
        metrics.observe(session, clock())
    assert REGISTRY.get_sample_value("metering_outbox_unknown_organizations") == 1
    assert REGISTRY.get_sample_value("metering_outbox_halted") == 0
    with control.transaction(ADMIN) as transaction:
        with pytest.raises(Refused, match="unknown_organization"):
            create_organization(transaction, "B", OrganizationSettings(), "org_b")
        create_organization(transaction, "C", OrganizationSettings(), "org_c")


async def test_default_prices_pass_over_who_is_halted(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    with control.transaction(ADMIN) as transaction:
        create_organization(transaction, "Calm", OrganizationSettings(), "org_calm")
    with store.write() as session:
        halt = compare.Halt("org_a", "memberships", compare.TOPIC_AHEAD, "ahead")
        compare.write_halts(session, [halt], clock())
    with control.transaction(ADMIN) as transaction:
        set_default_price(transaction, NewPrice("ai.tokens", 5))
    assert [len(facts(control, name)) for name in ("org_a", "org_calm")] == [1, 2]
    imported = await import_facts(settings, store, clock, control.alias_secret, ADMIN)
    assert imported.waiting_facts == 1
    assert [len(facts(control, name)) for name in ("org_a", "org_calm")] == [2, 2]


async def test_metrics_tell_what_waits_and_a_halt(
    store: Store, control: Control, clock: Clock, settings: Settings
) -> None:
    def observed() -> tuple[float, ...]:
        with store.read() as session:
            metrics.observe(session, clock())
        names = ("outbox_waiting", "outbox_oldest_waiting_seconds", "outbox_halted")
        samples = [REGISTRY.get_sample_value(f"metering_{name}") for name in names]
        assert None not in samples
        return tuple(value or 0.0 for value in samples)

    clock.forward(seconds=90)
    assert observed() == (1, 90, 0)
    async with publisher(settings, store, clock) as opened:
        await opened.publish_round()
        assert observed() == (0, 0, 0)
    with store.write() as session:
        halt = compare.Halt("org_a", "memberships", compare.TOPIC_AHEAD, "ahead")
        compare.write_halts(session, [halt], clock())
    assert observed() == (0, 0, 1)


async def test_one_process_at_a_time_publishes(store: Store) -> None:
    first, second = work_lock(store, PUBLISHING), work_lock(store, PUBLISHING)
    assert first.take()
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()


async def test_the_service_publishes_within_milliseconds_of_the_commit(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    outbox = Outbox(settings, store, clock)
    measured = REGISTRY.get_sample_value("metering_outbox_delay_seconds_count") or 0.0
    control.committed = outbox.wake
    await outbox.start()
    await asyncio.wait_for(outbox.first_look.wait(), 20)
    with control.change("org_a", ADMIN) as change:
        create_group(change, "One", "group_1")
        create_member(change, NewMember("ann@example.com", member_id="ann"))
        move_members(change, {"ann": "group_1"})
    await until_published(store)
    await outbox.stop()
    assert await published(settings) == [1, 2, 3, 4, 5]
    assert REGISTRY.get_sample_value("metering_outbox_delay_seconds_count") == measured + 5


async def test_a_round_that_hangs_is_given_up_and_done_again(
    store: Store, clock: Clock, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that waits for ever for its broker would keep every fact waiting."""
    whole, hung = FactPublisher.publish_round, asyncio.Event()

    async def hang_once(self: FactPublisher) -> int:
        if hung.is_set():
            return await whole(self)
        hung.set()
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(FactPublisher, "publish_round", hang_once)
    monkeypatch.setattr(service, "ROUND_S", 0.5)
    outbox = Outbox(settings, store, clock)
    await outbox.start()
    await asyncio.wait_for(hung.wait(), 20)
    monkeypatch.setattr(service, "ROUND_S", 60.0)
    grow(new_control(store, clock), 3)
    await until_published(store)
    await outbox.stop()
    assert await published(settings) == [1, 2, 3, 4]


async def test_organizations_are_published_side_by_side(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    for number in range(20):
        with control.transaction(ADMIN) as transaction:
            create_organization(transaction, "x", OrganizationSettings(), f"org_{number}")
    async with publisher(settings, store, clock) as opened:
        assert await opened.publish_round() == 21
    with store.read() as session:
        assert session.scalar(select(PublishingHalt)) is None
    keys = {key for key, _ in await read_all(settings, "memberships")}
    assert len(keys) == 21


def waiting(store: Store) -> bool:
    with store.read() as session:
        query = select(OutboxFact.id).where(OutboxFact.published_at.is_(None)).limit(1)
        return session.scalar(query) is not None
