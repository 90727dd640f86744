"""What one partition of all topics holds in the end, as any committed reader sees it."""

from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.settings import Settings
from schemas.topics import BALANCES, INPUTS, SINK_INPUTS


@dataclass
class Contents:
    """Committed records by unprefixed topic, in the order of their offsets."""

    partition: int
    records: dict[str, list[Any]] = field(default_factory=dict)


async def read_partition(settings: Settings, partition: int) -> Contents:
    """Reads inputs, outputs and balances of one partition from beginning to end."""
    contents = Contents(partition)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=16 << 20,
    )
    await consumer.start()
    try:
        at = {
            TopicPartition(settings.topic(name), partition): name
            for name in (*INPUTS, *SINK_INPUTS, BALANCES)
        }
        ends = await consumer.end_offsets(list(at))
        consumer.assign(list(at))
        contents.records = {name: [] for name in at.values()}
        while any([await consumer.position(tp) < ends[tp] for tp in at]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                contents.records[at[tp]] += records
    finally:
        await consumer.stop()
    return contents
