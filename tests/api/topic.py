"""Reading a topic to its end."""

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.settings import Settings
from streams.kafka import client_options


async def read_all(settings: Settings, topic: str) -> list[tuple[bytes | None, bytes]]:
    """Key and value of every record, partition by partition in their order."""
    return [(one.key, one.value) for one in await read_records(settings, topic)]


async def read_records(settings: Settings, topic: str) -> list[Any]:
    """Every record as aiokafka gives it, partition by partition in their order."""
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    await consumer.start()
    try:
        name = settings.topic(topic)
        partitions = [TopicPartition(name, number) for number in range(settings.partitions)]
        records: list[Any] = []
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.assign([partition])
            consumer.seek(partition, 0)
            while await consumer.position(partition) < ends[partition]:
                batches = await consumer.getmany(partition, timeout_ms=200)
                records += batches.get(partition, [])
        return records
    finally:
        await consumer.stop()
