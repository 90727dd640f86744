"""A round: the pipeline is started, fed with everything, must live on, and all is counted."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from cli.fuzzing.account import Account
from cli.fuzzing.records import Fuzzer, Sent, SentBatch, now
from cli.verification.differences import Differences
from cli.verification.pipeline import Pipeline, PipelineError
from cli.verification.settle import settle
from cli.verification.topic_contents import read_partition
from streams.wire.record_batch import RecordBatch, is_text

WORKERS: Final = 2
SETTLE_S: Final = 600.0
IN_FLIGHT: Final = 50
WATCH_INTERVAL_S: Final = 0.2
BATCH_BYTES: Final = 64 << 20

Offsets = dict[tuple[str, int, int], Sent]
"""What was sent, by topic, partition and offset."""


@dataclass
class Result:
    """`figures` is what the command prints."""

    differences: Differences
    reasons: Counter[str]
    figures: dict[str, Any]


@dataclass
class Feed:
    """Sends batches as they are; keeps where each record came to be."""

    producer: AIOKafkaProducer
    sent: Offsets = field(default_factory=dict)
    refused: int = 0
    """Records that the broker did not take."""

    async def send(self, batches: Iterable[SentBatch]) -> None:
        waiting: list[tuple[SentBatch, asyncio.Future[Any]]] = []
        for batch in batches:
            waiting.append((batch, await self._begin(batch)))
            if len(waiting) >= IN_FLIGHT:
                await self._finish(waiting)
        await self._finish(waiting)

    async def _begin(self, batch: SentBatch) -> "asyncio.Future[Any]":
        built = RecordBatch(
            BATCH_BYTES,
            batch.codec,
            batch.created_ms,
            takes_any_name=not all(is_text(list(each.headers)) for each in batch.records),
            is_transactional=False,
        )
        for record in batch.records:
            assert built.add(record.key, record.value, list(record.headers))
        future: asyncio.Future[Any] = await self.producer.send_batch(
            built, batch.topic, partition=batch.partition
        )
        return future

    async def _finish(self, waiting: list[tuple[SentBatch, "asyncio.Future[Any]"]]) -> None:
        for batch, future in waiting:
            try:
                first = (await future).offset
            except KafkaError:
                self.refused += len(batch.records)
                continue
            for number, record in enumerate(batch.records):
                self.sent[batch.topic, batch.partition, first + number] = record
        waiting.clear()


async def run_round(
    records: int, seed: int, corpus: Sequence[Sent], directory: Path, say: Callable[[str], None]
) -> Result:
    """Raises EngineError or PipelineError where it cannot be carried through."""
    started = time.monotonic()
    pipeline = Pipeline(directory, WORKERS)
    say(f"starting Kafka, ClickHouse, {WORKERS} workers and the sink in {directory}")
    try:
        await pipeline.start()
        watch = asyncio.create_task(_watch(pipeline), name="watch")
        work = asyncio.create_task(_feed(pipeline, records, seed, corpus, say), name="feed")
        await asyncio.wait((watch, work), return_when=asyncio.FIRST_COMPLETED)
        for task in (work, watch):
            task.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)
        if not watch.cancelled():
            watch.result()
        feed = work.result()
        await pipeline.stop_ours()
        account = Account(pipeline.settings, feed.sent)
        for partition in range(pipeline.settings.partitions):
            account.add(await read_partition(pipeline.settings, partition))
            say(f"partition {partition} counted: {account.differences.total} differences so far")
        account.finish()
        await asyncio.to_thread(account.compare_clickhouse)
    finally:
        pipeline.stop_all()
    figures = {
        "sent": len(feed.sent),
        "not_taken_by_the_broker": feed.refused,
        **account.counts,
        "lost": account.differences.lost,
        "duplicated": account.differences.duplicated,
        "wrong": account.differences.wrong,
        "seconds": round(time.monotonic() - started, 1),
        "seed": seed,
    }
    return Result(account.differences, account.reasons, figures)


async def _watch(pipeline: Pipeline) -> None:
    """Raises PipelineError when a process of ours ends."""
    while True:
        for process in pipeline.processes:
            if process.should_run and not process.is_running:
                raise PipelineError(
                    f"{process.name} ended with exit code {process.exit_code}: see {process.log}"
                )
        await asyncio.sleep(WATCH_INTERVAL_S)


async def _feed(
    pipeline: Pipeline, records: int, seed: int, corpus: Sequence[Sent], say: Callable[[str], None]
) -> Feed:
    producer = AIOKafkaProducer(
        bootstrap_servers=pipeline.kafka.bootstrap,
        acks="all",
        max_request_size=BATCH_BYTES,
        request_timeout_ms=60_000,
    )
    async with producer:
        feed = Feed(producer)
        fuzzer = Fuzzer(seed, pipeline.settings.partitions, now(), corpus)
        await feed.send(fuzzer.opening())
        await settle(pipeline, SETTLE_S)
        await feed.send(fuzzer.batches(records))
    say(f"{len(feed.sent):,} records sent; waiting until all is processed")
    await settle(pipeline, SETTLE_S)
    return feed
