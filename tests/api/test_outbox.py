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
from api.outbox import compare, metrics
from api.outbox.facts import FactPublisher
from api.outbox.lock import publisher_lock
from api.outbox.service import Outbox
from api.rules.change import Control
from api.rules.groups import create_group
from api.rules.members import NewMember, create_member
from api.rules.memberships import move_members
from api.rules.organizations import OrganizationSettings, create_organization
from api.storage.ledgers import OutboxFact, PublishingHalt, TopicPosition
from api.storage.store import Store
from schemas import codec
from schemas.settings import Settings
from streams.kafka import client_options
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


async def published(settings: Settings) -> list[int]:
    records = await read_all(settings, "memberships")
    assert all(key == b"org_a" for key, _ in records)
    return [codec.decode_membership(value).version for _, value in records]


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


async def test_a_restored_backup_publishes_nothing_and_refuses_changes(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
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
    await asyncio.sleep(0.3)
    await outbox.stop()
    assert await published(settings) == [1, 2, 3, 4, 5]
    restored.close()


async def test_a_topic_that_lost_records_halts_publishing(
    store: Store, clock: Clock, settings: Settings
) -> None:
    new_control(store, clock)
    with store.write() as session:
        compare.keep_position(session, settings.topic("memberships"), 0, 100)
    with pytest.raises(compare.Halt, match="lost data"):
        async with publisher(settings, store, clock):
            pass


async def test_an_unknown_organization_in_the_topic_is_ahead(
    store: Store, clock: Clock, settings: Settings
) -> None:
    control = new_control(store, clock)
    async with publisher(settings, store, clock) as opened:
        await opened.publish_round()
        producer = AIOKafkaProducer(**client_options(settings))
        await producer.start()
        topic = settings.topic("memberships")
        nested = b'{"organization_id":"org_a","version":1,"fact":' + b"[" * 2_000 + b"]" * 2_000
        for value in (
            b"not a fact",
            nested + b"}",
            b'{"organization_id":"org_\\u0000","version":1}',
            b'{"organization_id":"org_a","version":1' + b"0" * 30 + b"}",
            b'{"organization_id":"\xff","version":1}',
        ):
            await producer.send_and_wait(topic, value, key=b"org_a")
        grow(control, 1)
        assert await opened.publish_round() == 1
        foreign = msgspec.structs.replace(facts(control)[0], organization_id="org_b")
        await producer.send_and_wait(topic, codec.encode(foreign), key=b"org_b")
        await producer.stop()
        grow(control, 1, 1)
        with pytest.raises(compare.Halt, match="org_b"):
            await opened.publish_round()


async def test_metrics_tell_what_waits_and_a_halt(
    store: Store, control: Control, clock: Clock, settings: Settings
) -> None:
    def observed() -> tuple[float, ...]:
        with store.read() as session:
            metrics.observe(session, clock())
        names = ("outbox_waiting", "outbox_oldest_waiting_seconds", "outbox_halted")
        found = [REGISTRY.get_sample_value(f"metering_{name}") for name in names]
        assert None not in found
        return tuple(value or 0.0 for value in found)

    clock.forward(seconds=90)
    assert observed() == (1, 90, 0)
    async with publisher(settings, store, clock) as opened:
        await opened.publish_round()
        assert observed() == (0, 0, 0)
        opened.halt(compare.Halt("memberships", compare.TOPIC_AHEAD, "ahead"))
    assert observed() == (0, 0, 1)


async def test_one_process_at_a_time_publishes(store: Store) -> None:
    first, second = publisher_lock(store), publisher_lock(store)
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
    async with asyncio.timeout(5):
        while waiting(store):  # noqa: ASYNC110 - another process could be the publisher
            await asyncio.sleep(0.005)
    await outbox.stop()
    assert await published(settings) == [1, 2, 3, 4, 5]
    assert REGISTRY.get_sample_value("metering_outbox_delay_seconds_count") == measured + 5


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
