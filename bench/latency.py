"""From produce to rated, and from produce to queryable, at a steady rate.

One process produces at the pace, reads the rated rows as any consumer would, and asks ClickHouse
what it has. A record's latency begins when it is handed to the producer and ends when a reader has
it; for ClickHouse, when a poll (ten a second) shows its offset.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench import loading
from bench.stage import Stage
from bench.workload import OLD_NUMBER, Message
from schemas import topics
from sinks.inserts import Inserter
from streams.kafka import client_options

TICK_S: Final = 0.01
POLL_S: Final = 0.1
WARM_UP_SHARE: Final = 0.2
DRAIN_TIMEOUT_S: Final = 60.0

SHOWN: Final = (
    "SELECT input_partition, max(input_offset) FROM usage_rated_rows GROUP BY input_partition"
)


class _Id(msgspec.Struct):
    event_id: str


_decode_id = msgspec.json.Decoder(_Id).decode


@dataclass(slots=True)
class Latencies:
    """Milliseconds, after the warm-up."""

    rated_ms: list[float] = field(default_factory=list)
    queryable_ms: list[float] = field(default_factory=list)
    rate: float = 0.0
    """Events a second that were in fact produced."""


def percentile(values_ms: list[float], percent: float) -> float:
    return float(np.percentile(values_ms, percent)) if values_ms else float("nan")


class Paced:
    """Produces `seconds` x `rate` records, and remembers when each was produced."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.produced_s: dict[int, float] = {}
        """By event number."""
        self.unseen: list[deque[tuple[int, float]]] = [
            deque() for _ in range(stage.settings.partitions)
        ]
        """Offset and time of what ClickHouse did not show yet."""
        self.started_s = time.perf_counter()
        self.is_done = False

    async def run(self, latencies: Latencies) -> None:
        sizes = self._stage.sizes
        total = int(sizes.latency_s * sizes.latency_rate)
        messages = self._stage.workload.events(total)
        a_tick = max(1, int(sizes.latency_rate * TICK_S))
        # Generating a chunk of the workload takes a while: not when the clock runs.
        prepared = list(messages)
        offsets = await loading.ends(self._stage.settings, self._stage.usage)
        # Small batches at once, as products send them.
        async with loading.producer(self._stage.settings, linger_ms=2) as producer:
            self.started_s = time.perf_counter()
            for tick, first in enumerate(range(0, total, a_tick)):
                due_s = self.started_s + tick * TICK_S
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                await self._produce(producer, iter(prepared[first : first + a_tick]), offsets)
            latencies.rate = total / (time.perf_counter() - self.started_s)
            await producer.flush()
        self.is_done = True

    async def _produce(
        self, producer: Any, messages: Iterator[Message], offsets: list[int]
    ) -> None:
        for message in messages:
            now_s = time.perf_counter()
            if message.number not in self.produced_s and message.number < OLD_NUMBER:
                self.produced_s[message.number] = now_s
                self.unseen[message.partition].append((offsets[message.partition], now_s))
            offsets[message.partition] += 1
            await producer.send(
                self._stage.usage, message.value, key=message.key, partition=message.partition
            )

    def counts(self, produced_s: float) -> bool:
        return produced_s >= self.started_s + self._stage.sizes.latency_s * WARM_UP_SHARE


async def measure(stage: Stage, inserter: Inserter) -> Latencies:
    """Worker and sink are running and have nothing to catch up with."""
    latencies = Latencies()
    paced = Paced(stage)
    async with asyncio.timeout(stage.sizes.latency_s + DRAIN_TIMEOUT_S):
        reader = await _rated_reader(stage)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(paced.run(latencies))
                tasks.create_task(_read_rated(reader, paced, latencies))
                tasks.create_task(_ask_clickhouse(inserter, paced, latencies))
        finally:
            await reader.stop()
    return latencies


async def _rated_reader(stage: Stage) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(
        isolation_level="read_committed",
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
        **client_options(stage.settings),
    )
    await consumer.start()
    topic = stage.settings.topic(topics.USAGE_RATED)
    tps = [TopicPartition(topic, number) for number in range(stage.settings.partitions)]
    consumer.assign(tps)
    await consumer.seek_to_end(*tps)
    return consumer


async def _read_rated(reader: AIOKafkaConsumer, paced: Paced, latencies: Latencies) -> None:
    read = 0
    while not paced.is_done or read < len(paced.produced_s):
        fetched = await reader.getmany(timeout_ms=100)
        now_s = time.perf_counter()
        for records in fetched.values():
            for record in records:
                produced_s = paced.produced_s.get(int(_decode_id(record.value).event_id[:8], 16))
                if produced_s is None:
                    continue
                read += 1
                if paced.counts(produced_s):
                    latencies.rated_ms.append((now_s - produced_s) * 1000)


async def _ask_clickhouse(inserter: Inserter, paced: Paced, latencies: Latencies) -> None:
    while not paced.is_done or any(paced.unseen):
        answer = await inserter.text(SHOWN)
        now_s = time.perf_counter()
        for line in answer.splitlines():
            partition, queryable = map(int, line.split("\t"))
            unseen = paced.unseen[partition]
            while unseen and unseen[0][0] <= queryable:
                _, produced_s = unseen.popleft()
                if paced.counts(produced_s):
                    latencies.queryable_ms.append((now_s - produced_s) * 1000)
        await asyncio.sleep(POLL_S)
