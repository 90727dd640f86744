"""A worker process whose outputs are more than one record batch of their topic may hold, or whose
state would be more than one record of it may."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.embedded import EmbeddedKafka
from deploy.embedded.child import ChildProcess, clean_environment
from schemas import codec, records, topics
from schemas.bounds import CHANGES_MAX, LISTED_ID_BYTES_MAX
from schemas.settings import Settings
from streams.kafka import create_topics, home_partition
from tests.cli.conftest import environment_of
from tests.conftest import MakeSettings

ORGANIZATION = "org_7"
EVENTS, GRANTS = 12_000, 1_100
MOVES = 26_000
"""Of one member, to a group with a long name: 8.8 MB if all were kept."""
POOL = "website_with_a_name_as_long_as_they_are_" + "x" * 100
NOW = datetime.now(UTC)


def facts() -> list[tuple[str, bytes]]:
    def numbered(topic: str, kind: Any, rows: list[Any]) -> list[tuple[str, bytes]]:
        return [
            (topic, codec.encode(kind(ORGANIZATION, version, NOW, NOW - timedelta(days=1), row)))
            for version, row in enumerate(rows, 1)
        ]

    grants = [
        records.Granted(
            f"grant_{number}", "website", POOL, "monthly", 1_000, "admin:test", expires_at=NOW
        )
        for number in range(GRANTS)
    ]
    known = [
        records.OrganizationCreated(),
        records.PriceSet("ai.tokens", 1_000_000),
        records.WebsiteAssigned(POOL, records.UNASSIGNED),
    ]
    return [
        *numbered(topics.MEMBERSHIPS, records.MembershipRecord, known),
        *numbered(topics.CREDITS, records.CreditRecord, grants),
    ]


def event(number: int) -> bytes:
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": f"event_{number}",
            "source": "test",
            "type": "ai.tokens",
            "subject": "user_1",
            "organizationid": ORGANIZATION,
            "data": {"quantity": 1},
        }
    )


async def read(settings: Settings, topic: str, partition: int, count: int) -> list[Any]:
    """So many committed records; waits for them."""
    tp = TopicPartition(settings.topic(topic), partition)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    records: list[Any] = []
    async with consumer:
        consumer.assign([tp])
        while len(records) < count:
            for some in (await consumer.getmany(tp, timeout_ms=500)).values():
                records += some
    return records


async def test_many_misrouted_events_and_grants_that_expire_at_once_are_written_in_batches(
    kafka: EmbeddedKafka, make_settings: MakeSettings
) -> None:
    settings = make_settings(
        compression="none", late_grace_s=0, forfeit_interval_s=0.2, partitions=2
    )
    await create_topics(settings)
    home = home_partition(ORGANIZATION.encode(), settings.partitions)
    key = ORGANIZATION.encode()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=50) as producer:
        for topic, value in facts():
            await producer.send(settings.topic(topic), value, key=key, partition=home)
        await producer.flush()
        for number in range(EVENTS):
            await producer.send(
                settings.topic(topics.USAGE), event(number), key=key, partition=1 - home
            )
    worker = ChildProcess("worker", settings.data_dir / "worker.log", die_with_parent=True)
    worker.start(
        [sys.executable, "-m", "cli", "worker"], clean_environment(environment_of(settings))
    )
    try:
        rated = await read(settings, topics.USAGE_RATED, home, EVENTS)
        postings = await read(settings, topics.LEDGER, home, 4 * GRANTS)
        assert worker.is_running
    finally:
        worker.stop(20)
    events = {codec.decode_rated(record.value).event_id for record in rated}
    assert events == {f"event_{number}" for number in range(EVENTS)}
    forfeited = [codec.decode_posting(record.value) for record in postings]
    entries = {row.entry_id for row in forfeited if row.kind == "forfeit"}
    assert len(entries) == GRANTS


async def test_a_member_who_is_moved_for_ever_stops_no_worker(
    kafka: EmbeddedKafka, make_settings: MakeSettings
) -> None:
    settings = make_settings(compression="none", partitions=1)
    await create_topics(settings)
    key, at, group = ORGANIZATION.encode(), NOW - timedelta(days=1), "g" * LISTED_ID_BYTES_MAX
    moved = records.MemberAssigned("user_1", group, "scim")
    known: list[Any] = [
        records.OrganizationCreated(),
        records.PriceSet("ai.tokens", 1_000_000),
        records.GroupCreated(group),
        *[moved] * MOVES,
    ]
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=50) as producer:
        for version, fact in enumerate(known, 1):
            record = records.MembershipRecord(ORGANIZATION, version, NOW, at, fact)
            await producer.send(settings.topic(topics.MEMBERSHIPS), codec.encode(record), key=key)
        await producer.flush()
        worker = ChildProcess("worker", settings.data_dir / "worker.log", die_with_parent=True)
        command = [sys.executable, "-m", "cli", "worker"]
        worker.start(command, clean_environment(environment_of(settings)))
        try:
            letters = await read(settings, topics.DEAD_LETTERS, 0, MOVES - CHANGES_MAX)
            assert worker.is_running
        finally:
            worker.stop(20)
        assert {dict(letter.headers)["reason"] for letter in letters} == {b"too_many_changes"}

        # Another machine has only the changelogs, the value at its bound among them.
        elsewhere = settings.model_copy(update={"data_dir": settings.data_dir / "elsewhere"})
        elsewhere.data_dir.mkdir()
        await producer.send(settings.topic(topics.USAGE), event(1), key=key)
        worker.start(command, clean_environment(environment_of(elsewhere)))
        try:
            (rated,) = await read(settings, topics.USAGE_RATED, 0, 1)
        finally:
            worker.stop(20)
    assert codec.decode_rated(rated.value).stamped_group_id == group
