"""The reader of inputs on the real broker: what is committed, whole, from where it was asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import OffsetOutOfRangeError

from deploy.embedded import EmbeddedKafka
from streams.exactly_once.fetching import Fetched, Reader

WAIT_S = 5.0


@asynccontextmanager
async def _topic(kafka: EmbeddedKafka, name: str, partitions: int = 1) -> AsyncIterator[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1)])
        yield name
        await admin.delete_topics([name])
    finally:
        await admin.close()


async def _send(producer: AIOKafkaProducer, topic: str, values: list[bytes], at: int = 0) -> None:
    """As one record batch."""
    batch = producer.create_batch()
    for value in values:
        assert batch.append(key=None, value=value, timestamp=None) is not None
    sent = await producer.send_batch(batch, topic, partition=at)
    await sent


@asynccontextmanager
async def _reader(kafka: EmbeddedKafka) -> AsyncIterator[Reader]:
    reader = Reader({"bootstrap_servers": kafka.bootstrap})
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def _read(reader: Reader, tp: TopicPartition, until: int, most: int = 100) -> list[Fetched]:
    """Polls until the position is there."""
    polls: list[Fetched] = []
    while not polls or polls[-1].end < until:
        fetched = await reader.fetch({tp}, WAIT_S, most)
        assert fetched, f"nothing more came after {polls}"
        polls += fetched
    return polls


def _values(polls: list[Fetched]) -> list[bytes]:
    return [record.value for poll in polls for record in poll.records]


async def test_only_committed_records_come_and_no_position_is_left_out(
    kafka: EmbeddedKafka,
) -> None:
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap,
        "compression_type": "snappy",
    }
    async with _topic(kafka, "reader-committed") as topic, _reader(kafka) as reader:
        tp = TopicPartition(topic, 0)
        async with AIOKafkaProducer(transactional_id="reader-test", **options) as producer:
            for text, is_committed in ((b"a", True), (b"x", False), (b"b", True)):
                await producer.begin_transaction()
                await _send(producer, topic, [text + b"1", text + b"2"])
                if is_committed:
                    await producer.commit_transaction()
                else:
                    await producer.abort_transaction()
        async with AIOKafkaProducer(**options) as producer:
            await _send(producer, topic, [b"c1"])
        await reader.follow({tp: 0})
        polls = await _read(reader, tp, until=10)

    assert _values(polls) == [b"a1", b"a2", b"b1", b"b2", b"c1"]
    assert polls[0].start == 0
    assert polls[-1].end == 10  # three transactions of two records and a marker, and one record
    for former, latter in pairwise(polls):
        assert former.end == latter.start


async def test_a_poll_ends_with_the_record_batch_that_makes_it_enough(kafka: EmbeddedKafka) -> None:
    async with _topic(kafka, "reader-whole") as topic, _reader(kafka) as reader:
        tp = TopicPartition(topic, 0)
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            for first in range(0, 30, 10):
                await _send(producer, topic, [b"%d" % n for n in range(first, first + 10)])
        await reader.follow({tp: 0})
        polls = await _read(reader, tp, until=30, most=12)
        counts = [poll.records.count for poll in polls]

    assert _values(polls) == [b"%d" % n for n in range(30)]
    assert sum(counts) == 30
    assert max(counts) <= 20


async def test_a_position_within_a_record_batch_is_kept_to_the_record(kafka: EmbeddedKafka) -> None:
    async with _topic(kafka, "reader-middle") as topic, _reader(kafka) as reader:
        tp = TopicPartition(topic, 0)
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            await _send(producer, topic, [b"0", b"1", b"2", b"3"])
            await _send(producer, topic, [b"4"])
        await reader.follow({tp: 2})
        polls = await _read(reader, tp, until=5)

        assert sum(poll.records.count for poll in polls) == 3
        assert polls[0].start == 2
        assert _values(polls) == [b"2", b"3", b"4"]


async def test_following_more_partitions_loses_and_repeats_nothing(kafka: EmbeddedKafka) -> None:
    async with _topic(kafka, "reader-more", 2) as topic, _reader(kafka) as reader:
        tps = [TopicPartition(topic, number) for number in range(2)]
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            for number in range(2):
                for value in (b"a", b"b", b"c"):
                    await _send(producer, topic, [value], number)
        await reader.follow({tps[0]: 0})
        first = await reader.fetch({tps[0]}, WAIT_S, 1)
        assert _values(first) == [b"a"]

        await reader.follow({tps[1]: 1})
        assert _values(await _read(reader, tps[0], until=3)) == [b"b", b"c"]
        assert _values(await _read(reader, tps[1], until=3)) == [b"b", b"c"]

        await reader.unfollow_all()
        assert await reader.fetch(set(tps), WAIT_S, 1) == []


async def test_a_position_that_the_log_does_not_have_is_an_error(kafka: EmbeddedKafka) -> None:
    async with _topic(kafka, "reader-beyond") as topic, _reader(kafka) as reader:
        tp = TopicPartition(topic, 0)
        await reader.follow({tp: 7})
        with pytest.raises(OffsetOutOfRangeError):
            await _read(reader, tp, until=8)


async def test_where_only_markers_came_nothing_is_old(kafka: EmbeddedKafka) -> None:
    async with _topic(kafka, "reader-markers") as topic, _reader(kafka) as reader:
        options = {"bootstrap_servers": kafka.bootstrap, "transactional_id": "reader-markers"}
        async with AIOKafkaProducer(**options) as producer:
            await producer.begin_transaction()
            await _send(producer, topic, [b"never"])
            await producer.abort_transaction()
        tp = TopicPartition(topic, 0)
        await reader.follow({tp: 0})
        (poll,) = await _read(reader, tp, until=2)

    assert not poll.records
    assert poll.records.count == 0
    assert poll.records.oldest_ms == 0


async def test_an_idle_reader_asks_seldom_and_hears_at_once(kafka: EmbeddedKafka) -> None:
    """Long polls: what comes ends them, and so does a change of what is followed."""
    async with _topic(kafka, "reader-idle", 2) as topic, _reader(kafka) as reader:
        tps = [TopicPartition(topic, number) for number in range(2)]
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            await reader.follow(dict.fromkeys(tps, 0))
            for value in (b"a", b"b"):
                waiting = asyncio.create_task(reader.fetch({tps[0]}, WAIT_S, 100))
                await asyncio.sleep(0.05)
                await _send(producer, topic, [value])
                assert _values(await waiting) == [value]
                (fetch_wait_ms,) = await _next_fetch_waits_ms(reader, 1)
                assert fetch_wait_ms == 1000

            # Buffered, since nobody asks for it: now an answer must not be held back for long.
            await _send(producer, topic, [b"c"], at=1)
            assert await _next_fetch_waits_ms(reader, 1) == [50]

            waiting = asyncio.create_task(reader.fetch({tps[0]}, 3600.0, 1))
            await asyncio.sleep(0.05)
            await reader.unfollow_all()
            assert await waiting == []


async def _next_fetch_waits_ms(reader: Reader, count: int) -> list[int]:
    """How long the next requests let the broker hold back its answer."""
    client = reader._consumer._client  # what goes to the broker shows nowhere else
    send, seen, enough = client.send, [], asyncio.Event()

    async def recording(node: int, request: Any, **options: Any) -> Any:
        if type(request).__name__.startswith("Fetch"):
            seen.append(request._max_wait_ms)
            if len(seen) == count:
                enough.set()
        return await send(node, request, **options)

    client.send = recording
    try:
        async with asyncio.timeout(WAIT_S):
            await enough.wait()
    finally:
        client.send = send
    return seen[:count]
