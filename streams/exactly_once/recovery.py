"""Reading the changelogs of one partition to their end, into its local store."""

from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.exactly_once.local_store import LocalStore

POLL_RECORDS = 20_000


class BelowLogStart(RuntimeError):
    """A position is no longer in its topic: what was there is gone, so nothing may skip it."""


async def recover(
    store: LocalStore,
    partition: int,
    *,
    topic_names: Mapping[str, str],
    seen_topic: str,
    client_settings: Mapping[str, Any],
) -> int:
    """Brings the store up to the changelogs' ends and returns how many records that took.

    To be called after the partition's producer has fenced its former owner: the ends are then
    final. `topic_names` maps unprefixed to real names of all changelogs, `seen_topic` is the
    unprefixed name of the one with packed seen ids. A store below a log's start is discarded and
    everything is read.
    """
    consumer = AIOKafkaConsumer(
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=8 << 20,
        fetch_max_wait_ms=50,
        **client_settings,
    )
    await consumer.start()
    try:
        at = {TopicPartition(real, partition): name for name, real in topic_names.items()}
        consumer.assign(list(at))
        starts = await consumer.beginning_offsets(list(at))
        ends = await consumer.end_offsets(list(at))
        positions = _resume_from(store, at, starts, ends)
        for tp, position in positions.items():
            consumer.seek(tp, position)
        return await _read(consumer, store, at, positions, ends, seen_topic)
    finally:
        await consumer.stop()


def _resume_from(
    store: LocalStore,
    at: Mapping[TopicPartition, str],
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    positions = store.positions
    outside = [
        name
        for tp, name in at.items()
        if positions and not starts[tp] <= positions.get(name, -1) <= ends[tp]
    ]
    if outside:
        store.discard(f"its positions are outside of what {', '.join(outside)} hold")
        positions = {}
    return {tp: positions.get(name, starts[tp]) for tp, name in at.items()}


async def _read(
    consumer: AIOKafkaConsumer,
    store: LocalStore,
    at: Mapping[TopicPartition, str],
    positions: dict[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    seen_topic: str,
) -> int:
    records = 0
    while any(positions[tp] < ends[tp] for tp in at):
        fetched = await consumer.getmany(timeout_ms=200, max_records=POLL_RECORDS)
        items: list[tuple[bytes, bytes | None]] = []
        for tp, batch in fetched.items():
            if at[tp] == seen_topic:
                for record in batch:
                    store.seen.insert_packed(record.value, record.timestamp)
            else:
                items.extend((record.key, record.value) for record in batch)
            records += len(batch)
        for tp in at:
            positions[tp] = await consumer.position(tp)
        # Records and positions in one write: a kill in the middle resumes here.
        store.write(items, {name: positions[tp] for tp, name in at.items()})
    if not store.positions:
        store.write([], {name: positions[tp] for tp, name in at.items()})
    return records
