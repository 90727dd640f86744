"""Reading a topic to its end."""

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.settings import Settings
from streams.kafka import client_options


async def read_all(settings: Settings, topic: str) -> list[tuple[bytes | None, bytes]]:
    """Key and value of every record, partition by partition in their order."""
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    await consumer.start()
    try:
        name = settings.topic(topic)
        partitions = [TopicPartition(name, number) for number in range(settings.partitions)]
        found: list[tuple[bytes | None, bytes]] = []
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.assign([partition])
            consumer.seek(partition, 0)
            while await consumer.position(partition) < ends[partition]:
                batches = await consumer.getmany(partition, timeout_ms=200)
                found += [(one.key, one.value) for one in batches.get(partition, [])]
        return found
    finally:
        await consumer.stop()
