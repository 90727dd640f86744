"""The floor: a bare aiokafka consume-produce loop with transactions, as cheap as it gets.

The same decisions, on state in a dict; the same dedupe, in a dict with the same ids; the same
batch sizes, uvloop and snappy. No Faust, no changelogs, no recovery, no metrics: what it has not
seen since its start it does not know. `python -m bench.floor`, driven by `engines.FloorEngine`:
a line of JSON (`Order`) comes on stdin, `ready` goes out when everything is loaded; each further
line is the total of records to have processed, answered by `done`.
"""

import asyncio
import gc
import sys
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.reading import read_all, read_facts
from schemas import topics
from schemas.codec import alias_hash, reusing_encoder
from schemas.records import RatedEvent
from schemas.settings import Settings
from streams.decisions.dedupe import UNSEEN
from streams.decisions.events import Limits, UsageEvent
from streams.decisions.intake import Intake
from streams.decisions.state import MemoryState
from streams.decisions.usage import UsageContext, apply_rated, decide_usage
from streams.kafka import client_options
from streams.worker_process import GC_ALLOCATIONS

FETCH_BYTES: Final = 2 << 20
FETCH_WAIT_MS: Final = 50
BATCH_BYTES: Final = 4 << 20
ROW_BYTES: Final = 24


class Order(msgspec.Struct):
    """What to run on: topics of `settings`, results to `output`, offsets under `group`."""

    settings: dict[str, Any]
    output: str
    group: str
    seen_ends: list[int]
    """Where `metering-seen` ended before the worker wrote to it."""


class Floor:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.settings = Settings(**order.settings)
        self.state = MemoryState()
        self.seen: list[dict[bytes, int]] = [{} for _ in range(self.settings.partitions)]
        self.processed = 0
        self.target = 0
        self.changed = asyncio.Event()
        self.intake = Intake(Limits())
        self.encode = reusing_encoder()
        secret = self.settings.alias_secret.get_secret_value().encode()
        self.alias_hash = partial(alias_hash, secret)
        self.usage = self.settings.topic(topics.USAGE)
        self.consumer = AIOKafkaConsumer(
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            **client_options(self.settings),
        )

    async def load(self) -> None:
        """Facts and seen ids into memory, from the topics that the worker has them from."""
        self.state = await read_facts(self.settings)
        seen = self.settings.topic(topics.SEEN)
        async for record in read_all(self.settings, seen, self.order.seen_ends):
            self._remember(record)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS, 20, 50)

    def _remember(self, record: Any) -> None:
        raw = record.value
        contents = np.frombuffer(raw, np.uint64).reshape(-1, 3)[:, 2].tolist()
        ids = [raw[at : at + 16] for at in range(0, len(raw), ROW_BYTES)]
        self.seen[record.partition].update(zip(ids, contents, strict=True))

    async def run(self) -> None:
        await self.consumer.start()
        numbers = range(self.settings.partitions)
        self.consumer.assign([TopicPartition(self.usage, number) for number in numbers])
        async with asyncio.TaskGroup() as tasks:
            for number in numbers:
                tasks.create_task(self._lane(number))

    async def _lane(self, partition: int) -> None:
        tp = TopicPartition(self.usage, partition)
        options: dict[str, Any] = {
            "transactional_id": f"{self.order.group}-{partition}",
            "compression_type": "snappy",
            "max_batch_size": BATCH_BYTES,
            "max_request_size": 64 << 20,
            "linger_ms": 0,
            "retry_backoff_ms": 5,
        }
        context = UsageContext(self.usage, partition, self.alias_hash, datetime.now(UTC))
        async with AIOKafkaProducer(**options, **client_options(self.settings)) as producer:
            while True:
                while self.processed >= self.target:
                    self.changed.clear()
                    await self.changed.wait()
                fetched = await self.consumer.getmany(
                    tp, timeout_ms=FETCH_WAIT_MS, max_records=self.settings.batch_max_events
                )
                if fetched:
                    await self._transact(producer, tp, fetched[tp], context)

    async def _transact(
        self, producer: AIOKafkaProducer, tp: TopicPartition, records: Any, context: UsageContext
    ) -> None:
        context.now = datetime.now(UTC)
        batches = self._decide(producer, records, context)
        await producer.begin_transaction()
        sent = [
            await producer.send_batch(batch, self.order.output, partition=tp.partition)
            for batch in batches
        ]
        await producer.send_offsets_to_transaction({tp: records[-1].offset + 1}, self.order.group)
        await asyncio.gather(*sent)
        await producer.commit_transaction()
        self.processed += len(records)
        if self.processed >= self.target:
            print("done", flush=True)

    def _decide(self, producer: AIOKafkaProducer, records: Any, context: UsageContext) -> list[Any]:
        seen, state, encode = self.seen[context.input_partition], self.state, self.encode
        parse = self.intake.parse
        builder = producer.create_batch()
        batches = [builder]
        timestamp_ms, appended_at = -1, context.now
        for record in records:
            if record.timestamp != timestamp_ms:
                timestamp_ms = record.timestamp
                appended_at = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
            event = parse(record.value, record.key, record.headers, appended_at)
            assert isinstance(event, UsageEvent), event
            if seen.get(event.identity, UNSEEN) != UNSEEN:
                continue
            rated = decide_usage(event, record.offset, state, context)
            assert isinstance(rated, RatedEvent), rated
            apply_rated(rated, state)
            seen[event.identity] = event.content
            value = encode(rated)
            if builder.append(timestamp=timestamp_ms, key=record.key, value=value) is None:
                builder = producer.create_batch()
                batches.append(builder)
                builder.append(timestamp=timestamp_ms, key=record.key, value=value)
        return [batch for batch in batches if batch.record_count()]


async def _obey(floor: Floor) -> None:
    """Totals from stdin, one a line, until it ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        floor.target = int(line)
        floor.changed.set()


async def _main() -> None:
    floor = Floor(msgspec.json.decode(sys.stdin.readline(), type=Order))
    await floor.load()
    running = asyncio.create_task(floor.run())
    print("ready", flush=True)
    obeying = asyncio.create_task(_obey(floor))
    await asyncio.wait((running, obeying), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await floor.consumer.stop()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(_main())
