"""Waits until everything is processed: until both consumer groups stand at the end of their topics.

A position may lie before the end where only transaction markers follow it, so where it does, what
lies between is read: the pipeline is done when that holds no record. The end is the last stable
offset; while it is short of the high watermark somebody's transaction is open still.
"""

import asyncio
import time
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from cli.verification.pipeline import Pipeline, PipelineError
from schemas.topics import INPUTS, SINK_INPUTS

POLL_S: Final = 0.5
CALM_POLLS: Final = 2
"""So often in a row it must look done: between a worker's output and the sink there is a moment."""


async def settle(pipeline: Pipeline, within_s: float) -> None:
    """Returns when worker and sink have processed all. Raises PipelineError after `within_s`."""
    deadline = time.monotonic() + within_s
    calm, behind = 0, "nothing was asked yet"
    while calm < CALM_POLLS:
        if time.monotonic() > deadline:
            raise PipelineError(f"not processed within {within_s:.0f} s: {behind}")
        try:
            behind = await _behind(pipeline)
        except (KafkaError, OSError) as error:
            behind = f"Kafka cannot be asked: {error!r}"
        calm = 0 if behind else calm + 1
        await asyncio.sleep(POLL_S)


async def _behind(pipeline: Pipeline) -> str:
    """What is not processed yet, in words; empty when everything is."""
    settings = pipeline.settings
    bootstrap = pipeline.kafka.bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    stable = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    latest = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await admin.start()
    await stable.start()
    await latest.start()
    try:
        for group, names in ((settings.app_id, INPUTS), (f"{settings.app_id}-sink", SINK_INPUTS)):
            tps = [
                TopicPartition(settings.topic(name), number)
                for name in names
                for number in range(settings.partitions)
            ]
            offsets = await admin.list_consumer_group_offsets(group)
            positions = {tp: meta.offset for tp, meta in offsets.items() if meta.offset >= 0}
            behind = await _partition_behind(stable, latest, tps, positions)
            if behind:
                return f"{group}: {behind}"
        return ""
    finally:
        await admin.close()
        await stable.stop()
        await latest.stop()


async def _partition_behind(
    stable: AIOKafkaConsumer,
    latest: AIOKafkaConsumer,
    tps: list[TopicPartition],
    positions: dict[TopicPartition, int],
) -> str:
    ends = await stable.end_offsets(tps)
    watermarks = await latest.end_offsets(tps)
    open_ones = [tp for tp in tps if ends[tp] < watermarks[tp]]
    if open_ones:
        return f"a transaction is open in {open_ones[0].topic}[{open_ones[0].partition}]"
    short = {tp: ends[tp] for tp in tps if positions.get(tp, 0) < ends[tp]}
    if not short:
        return ""
    stable.assign(list(short))
    for tp in short:
        stable.seek(tp, positions.get(tp, 0))
    return await _first_record(stable, short)


async def _first_record(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> str:
    """The first record before the ends, in words; empty where there are only markers."""
    while True:
        fetched: dict[Any, list[Any]] = await consumer.getmany(timeout_ms=200, max_records=100)
        for tp, records in fetched.items():
            if records:
                return f"{tp.topic}[{tp.partition}] from {records[0].offset} to {ends[tp]}"
        if all([await consumer.position(tp) >= end for tp, end in ends.items()]):
            return ""
