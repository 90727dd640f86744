"""A broker whose disk is full: what it acknowledged is there when there is room again."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.embedded import EmbeddedKafka
from tests.small_disk import SmallDisk, small_disk

ROW, BALANCE = TopicPartition("rows", 0), TopicPartition("balances", 0)
KEYS = 50
WRITING = Path(__file__).with_name("writing_transactions.py")
LEFT_BYTES = 2 << 20

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 96) as mounted:
        yield mounted


@pytest.fixture
def broker(disk: SmallDisk) -> Iterator[EmbeddedKafka]:
    # Compacts all the time, so that a full disk meets it in the middle.
    often = {"log.cleaner.backoff.ms": "50", "log.retention.check.interval.ms": "500"}
    started = EmbeddedKafka(disk.path, settings=often)
    started.start()
    yield started
    started.stop()


async def create_topics(broker: EmbeddedKafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    small = {"segment.bytes": str(1 << 20), "message.timestamp.type": "LogAppendTime"}
    compacted = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}
    await admin.create_topics(
        [
            NewTopic(ROW.topic, 1, 1, topic_configs=small),
            NewTopic(BALANCE.topic, 1, 1, topic_configs={**small, **compacted}),
        ]
    )
    await admin.close()


class Writer:
    """What `writing_transactions.py` was told is committed."""

    def __init__(self, broker: EmbeddedKafka) -> None:
        self._broker = broker
        self._next = 0
        self.acknowledged: list[int] = []

    async def write(self, count: int) -> bool:
        """Whether all of so many transactions were acknowledged."""
        arguments = [self._broker.bootstrap, str(self._next), str(count), str(KEYS)]
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(WRITING), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        self.acknowledged += [int(line) for line in ended.stdout.split()]
        # Of the next one nobody knows whether it was committed.
        self._next = self.acknowledged[-1] + 2
        return ended.returncode == 0


async def read(broker: EmbeddedKafka, tp: TopicPartition) -> list[tuple[str, int]]:
    """Key and number of every committed record."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    await consumer.start()
    consumer.assign([tp])
    await consumer.seek_to_beginning(tp)
    (end,) = (await consumer.end_offsets([tp])).values()
    records: list[Any] = []
    async with asyncio.timeout(60):
        while await consumer.position(tp) < end:
            for some in (await consumer.getmany(timeout_ms=200)).values():
                records += some
    await consumer.stop()
    return [(record.key.decode(), int(record.value.split()[0])) for record in records]


async def assert_all_there(broker: EmbeddedKafka, writer: Writer) -> None:
    rows = await read(broker, ROW)
    times = Counter(number for _, number in rows)
    assert set(writer.acknowledged) - set(times) == set()
    assert [number for number, count in times.items() if count > 1] == []
    # Balances were committed with the rows: the last of each key is the last row's of that key.
    last = {f"b{number % KEYS}": number for number in sorted(times)}
    assert dict(await read(broker, BALANCE)) == last


async def test_what_was_acknowledged_is_there_when_the_disk_has_room_again(
    disk: SmallDisk, broker: EmbeddedKafka
) -> None:
    await create_topics(broker)
    writer = Writer(broker)
    assert await writer.write(200)
    disk.fill(leave_bytes=LEFT_BYTES)
    assert not await writer.write(100_000)
    assert disk.free_bytes() < LEFT_BYTES // 4
    await asyncio.to_thread(broker.kill)
    disk.make_room()
    await asyncio.to_thread(broker.start)
    assert await writer.write(50)
    await assert_all_there(broker, writer)
