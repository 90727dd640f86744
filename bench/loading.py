"""Topics and what is in them before an engine runs: facts, usage, ids seen before."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.workload import Message, Workload
from schemas import topics
from schemas.settings import Settings
from streams.kafka import client_options, create_topics

BATCH_BYTES: Final = 512 << 10
SEEN_ROWS_A_RECORD: Final = 40_000
"""A megabyte of seen ids a record; a transaction of the worker writes about a tenth of that."""
IN_FLIGHT_MAX: Final = 64
GIVE_WAY_EVERY: Final = 2_000


async def prepare(settings: Settings, workload: Workload, seen: int) -> None:
    """Topics, facts, and `seen` ids seen before in the runtime's own format."""
    await create_topics(settings)
    await publish_facts(settings, workload)
    async with producer(settings, compression_type=None) as open_producer:
        for partition in range(settings.partitions):
            rows = workload.seen_rows(partition, seen // settings.partitions)
            await _send_seen(open_producer, settings.topic(topics.SEEN), partition, rows)


async def publish_facts(settings: Settings, workload: Workload) -> None:
    async with producer(settings) as open_producer:
        await fill(open_producer, settings.topic(topics.MEMBERSHIPS), workload.memberships())
        await fill(open_producer, settings.topic(topics.CREDITS), workload.credits())


def producer(settings: Settings, **options: Any) -> AIOKafkaProducer:
    """One for whole batches; `async with` starts and stops it."""
    return AIOKafkaProducer(
        **{
            "compression_type": "snappy",
            "max_batch_size": BATCH_BYTES,
            "max_request_size": 8 << 20,
            **client_options(settings),
            **options,
        }
    )


async def fill(open_producer: AIOKafkaProducer, topic: str, messages: Iterable[Message]) -> int:
    """Sends all messages in large batches, in their order within each partition."""
    builders: dict[int, Any] = {}
    sent: list[Any] = []
    count = 0

    async def send(partition: int) -> None:
        builder = builders.pop(partition)
        sent.append(await open_producer.send_batch(builder, topic, partition=partition))
        if len(sent) >= IN_FLIGHT_MAX:
            await asyncio.gather(*sent)
            sent.clear()

    for message in messages:
        partition = message.partition
        if partition not in builders:
            builders[partition] = open_producer.create_batch()
        options = {"key": message.key, "value": message.value, "timestamp": None}
        if builders[partition].append(**options) is None:
            await send(partition)
            builders[partition] = open_producer.create_batch()
            builders[partition].append(**options)
        count += 1
        if count % GIVE_WAY_EVERY == 0:
            await asyncio.sleep(0)
    for partition in list(builders):
        await send(partition)
    await asyncio.gather(*sent)
    return count


async def _send_seen(
    open_producer: AIOKafkaProducer, topic: str, partition: int, rows: npt.NDArray[np.uint64]
) -> None:
    for first in range(0, len(rows), SEEN_ROWS_A_RECORD):
        packed = rows[first : first + SEEN_ROWS_A_RECORD].tobytes()
        future = await open_producer.send(topic, packed, partition=partition)
        await future


async def create_plain_topics(settings: Settings, names: Iterable[str], cleanup: str) -> None:
    """Topics outside of the contract, for the other engines."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(
                    name,
                    settings.partitions,
                    1,
                    topic_configs={
                        "cleanup.policy": cleanup,
                        "message.timestamp.type": "LogAppendTime",
                        "max.message.bytes": str(8 << 20),
                    },
                )
                for name in names
            ]
        )
    finally:
        await admin.close()


async def ends(settings: Settings, topic: str) -> list[int]:
    """End offsets by partition, of what is committed."""
    consumer = AIOKafkaConsumer(isolation_level="read_committed", **client_options(settings))
    await consumer.start()
    try:
        tps = [TopicPartition(topic, number) for number in range(settings.partitions)]
        offsets = await consumer.end_offsets(tps)
        return [offsets[tp] for tp in tps]
    finally:
        await consumer.stop()
