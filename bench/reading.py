"""Whole topics, read from their beginning to where they end now."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas import topics
from schemas.settings import Settings
from streams.decisions.facts import FactInput, decide_fact
from streams.decisions.state import MemoryState, apply_changes
from streams.kafka import client_options

POLL_RECORDS: Final = 20_000


async def read_all(
    settings: Settings, topic: str, ends: Sequence[int] | None = None
) -> AsyncIterator[Any]:
    """Its committed records, each partition in order; `ends` by partition, or as they are now.

    A fetch may go beyond an end that was given: what was written later is left out.
    """
    consumer = AIOKafkaConsumer(
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8 << 20,
        **client_options(settings),
    )
    await consumer.start()
    try:
        tps = [TopicPartition(topic, number) for number in range(settings.partitions)]
        consumer.assign(tps)
        if ends is None:
            until = await written_ends(settings, tps)
        else:
            until = dict(zip(tps, ends, strict=True))
        while any([await consumer.position(tp) < until[tp] for tp in tps]):
            fetched = await consumer.getmany(timeout_ms=200, max_records=POLL_RECORDS)
            for tp, records in fetched.items():
                for record in records:
                    if record.offset < until[tp]:
                        yield record
            await asyncio.sleep(0)
    finally:
        await consumer.stop()


async def written_ends(settings: Settings, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Where the partitions end, transactions included whose markers are still to be written.

    A commit is acknowledged before that: an end of what is committed would miss the last ones.
    """
    consumer = AIOKafkaConsumer(isolation_level="read_uncommitted", **client_options(settings))
    await consumer.start()
    try:
        ends: Mapping[TopicPartition, int] = await consumer.end_offsets(tps)
        return dict(ends)
    finally:
        await consumer.stop()


async def read_facts(settings: Settings) -> MemoryState:
    """The state that all facts of the topics come to."""
    state = MemoryState()
    now = datetime.now(UTC)
    for topic in topics.FACTS:
        async for record in read_all(settings, settings.topic(topic)):
            fact_input = FactInput(
                topic,
                record.partition,
                record.offset,
                record.key,
                record.value,
                now,
                record.partition,
            )
            apply_changes(state, decide_fact(fact_input, state).changes)
    return state
