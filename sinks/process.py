"""The sink as a process: reads the next block while one is being stored, and tells how it goes.

Bounds: three blocks at a time (filling, waiting, being stored), each of at most
`sink_batch_max_rows` rows and 32 MiB.
"""

import asyncio
import signal
import time
from contextlib import suppress
from typing import Final

import structlog
import uvloop
from aiokafka.errors import KafkaError

from schemas import topics
from schemas.settings import Settings
from sinks import metrics
from sinks.blocks import Block, BlockBuilder
from sinks.cycles import CycleWriter
from sinks.errors import RefusedError, SinkError, UnavailableError
from sinks.group import Group
from sinks.inserts import Inserter
from sinks.rows import TARGETS
from sinks.status import Status
from sinks.store import Store
from streams.health import cannot_listen, serve_health
from streams.kafka import cluster_id
from streams.outage import Outage
from warehouse.late_facts import CHECK_INTERVAL_S, CHECK_SETTINGS, COUNT_CHANGED_STAMPS

IDLE_FETCH_S: Final = 1.0
STOP_WAIT_S: Final = 10.0
"""How long a stop waits for the block that is being stored."""

LAG_INTERVAL_S: Final = 5.0
LAG_TIMEOUT_S: Final = 8.0
ASK_INTERVAL_S: Final = 5.0
ASK_TIMEOUT_S: Final = 5.0

log = structlog.get_logger("sink")


def run(settings: Settings, *, from_earliest: bool = False) -> None:
    """Run until SIGTERM or SIGINT. Blocks.

    Raises `SinkError` when it must not go on: `from_earliest` then goes on with what is left of the
    log. Waits, never ends, while Kafka or ClickHouse is down.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run_until_signal(settings, from_earliest))


async def _run_until_signal(settings: Settings, from_earliest: bool) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await serve(settings, stopping, from_earliest=from_earliest)


async def serve(settings: Settings, stopping: asyncio.Event, *, from_earliest: bool) -> None:
    """The sink on the running event loop, until `stopping` is set. Raises as `run` does."""
    sink = _Sink(settings, from_earliest)
    where = (settings.metrics_host, settings.sink_metrics_port)
    try:
        health = await serve_health(*where, sink.status.live, sink.status.ready)
    except OSError as error:
        raise SinkError(cannot_listen(error, *where, "METERING_SINK_METRICS_PORT")) from error
    try:
        await sink.run_until(stopping)
    finally:
        await health.stop()


class _Sink:
    def __init__(self, settings: Settings, from_earliest: bool) -> None:
        self._settings = settings
        self._from_earliest = from_earliest
        self._clickhouse = _outage("clickhouse")
        self._kafka = _outage("kafka")
        self._fetching = _outage("kafka_fetch")
        self._committing = _outage("kafka_commit")
        self.status = Status(self._clickhouse, self._kafka, self._fetching, self._committing)
        self._is_storing = False
        self._blocks: asyncio.Queue[Block] = asyncio.Queue(maxsize=1)

    async def run_until(self, stopping: asyncio.Event) -> None:
        inserter = Inserter(self._settings)
        checker = Inserter(self._settings)
        asker = Inserter(self._settings)
        calendars = Inserter(self._settings)
        cycles = CycleWriter(calendars)
        main = asyncio.create_task(self._run(inserter, checker, cycles), name="sink")
        asking = asyncio.create_task(self._watch_clickhouse(asker), name="clickhouse")
        waiter = asyncio.create_task(stopping.wait(), name="stopping")
        try:
            await asyncio.wait((main, waiter), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (waiter, main, asking):
                task.cancel()
            await asyncio.gather(main, waiter, asking, return_exceptions=True)
            for client in (inserter, checker, asker, calendars):
                await client.close()
        if not main.cancelled():
            main.result()

    async def _run(self, inserter: Inserter, checker: Inserter, cycles: CycleWriter) -> None:
        cluster = await self._ask_cluster_id()
        group = await self._start_group()
        self.status.has_joined = lambda: group.has_joined
        names = {topic: self._settings.topic(topic) for topic in TARGETS}
        store = Store(inserter, self._clickhouse, cluster, names)
        storing = asyncio.create_task(self._store_blocks(group, store, cycles), name="store")
        others = [
            asyncio.create_task(self._read(group), name="read"),
            asyncio.create_task(self._watch_lag(group), name="lag"),
            asyncio.create_task(self._watch_stamps(checker), name="stamps"),
            asyncio.create_task(cycles.run(), name="cycles"),
        ]
        log.info("sink started", cluster=cluster, topics=list(names.values()))
        try:
            # None of these tasks returns, so the first that ends has failed.
            await asyncio.wait((storing, *others), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._finish(group)
            storing.cancel()
            await asyncio.gather(storing, return_exceptions=True)
            await group.stop()
            log.info("sink stopped")
        for task in (storing, *others):
            if not task.cancelled():
                task.result()

    async def _ask_cluster_id(self) -> str:
        while True:
            try:
                cluster = await cluster_id(self._settings)
            except (KafkaError, OSError) as error:
                self._kafka.begin(str(error))
                await self._kafka.wait()
            else:
                self._kafka.end()
                return cluster

    async def _start_group(self) -> Group:
        while True:
            group = Group(self._settings, from_earliest=self._from_earliest)
            try:
                await group.start()
            except (KafkaError, OSError) as error:
                self._kafka.begin(str(error))
                await group.stop()
                await self._kafka.wait()
            else:
                self._kafka.end()
                return group

    async def _read(self, group: Group) -> None:
        builder = BlockBuilder(
            self._settings.sink_batch_max_rows, self._settings.sink_batch_max_wait_s
        )
        while True:
            wait_s = min(builder.wait_s(time.monotonic()), IDLE_FETCH_S)
            try:
                fetched = await group.fetch(builder.room_rows, wait_s)
            except (KafkaError, OSError) as error:
                self._fetching.begin(str(error))
                await self._fetching.wait()
                continue
            self._fetching.end()
            # Read before anything is awaited, so that it is the generation of these records.
            generation = group.generation
            for partition, records in fetched.items():
                remaining = records
                while remaining:
                    taken = builder.add(partition, remaining, generation, time.monotonic())
                    remaining = remaining[taken:]
                    if builder.is_full:
                        await self._blocks.put(builder.finish())
            if builder.is_due(time.monotonic()):
                await self._blocks.put(builder.finish())

    async def _store_blocks(self, group: Group, store: Store, cycles: CycleWriter) -> None:
        facts_topic = self._settings.topic(topics.FACTS_APPLIED)
        while True:
            block = await self._blocks.get()
            if not group.may_store(block.generation):
                continue
            group.finished.clear()
            self._is_storing = True
            try:
                await store.put(block)
                if block.records.get(facts_topic):
                    cycles.facts_came()
                if await self._commit(group, block):
                    metrics.BLOCKS.inc()
                    metrics.LAST_COMMIT.set_to_current_time()
                    self.status.progress()
            finally:
                group.finished.set()
                self._is_storing = False

    async def _commit(self, group: Group, block: Block) -> bool:
        while True:
            try:
                is_committed = await group.commit(block.generation, block.positions)
            except (KafkaError, OSError) as error:
                self._committing.begin(str(error))
                await self._committing.wait()
            else:
                self._committing.end()
                return is_committed

    async def _finish(self, group: Group) -> None:
        """Let the block that is being stored end, unless ClickHouse is down."""
        if not self._clickhouse.problem:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_WAIT_S):
                    await group.finished.wait()

    async def _watch_clickhouse(self, asker: Inserter) -> None:
        """Whether it answers while there is nothing to store; otherwise the inserts tell."""
        while True:
            problem = ""
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    await asker.text("SELECT 1")
            except (RefusedError, UnavailableError, TimeoutError) as error:
                problem = str(error) or "no answer"
            if not self._is_storing:
                if problem:
                    self._clickhouse.begin(problem)
                else:
                    self._clickhouse.end()
            await asyncio.sleep(ASK_INTERVAL_S)

    async def _watch_lag(self, group: Group) -> None:
        while True:
            generation = group.generation
            try:
                async with asyncio.timeout(LAG_TIMEOUT_S):
                    lags = await group.lags()
                    self.status.missing_topics = await group.missing_topics()
            except (KafkaError, OSError, TimeoutError) as error:
                self._kafka.begin(str(error) or "no answer")
            else:
                self._kafka.end()
                if generation != group.generation:
                    # Some of these partitions may be another sink's by now.
                    continue
                for partition, lag in lags.items():
                    metrics.LAG.labels(partition.topic, str(partition.partition)).set(lag)
                self.status.lag_records = sum(lags.values())
                if not self.status.lag_records:
                    self.status.progress()
            await asyncio.sleep(LAG_INTERVAL_S)

    async def _watch_stamps(self, checker: Inserter) -> None:
        while True:
            try:
                answer = await checker.text(COUNT_CHANGED_STAMPS, CHECK_SETTINGS)
            except (RefusedError, UnavailableError) as error:
                log.warning("stamps were not compared with late facts", problem=str(error))
            else:
                metrics.STAMPS_CHANGED.set(int(answer))
                metrics.STAMPS_CHECKED.set_to_current_time()
            await asyncio.sleep(CHECK_INTERVAL_S)


def _outage(dependency: str) -> Outage:
    return Outage(dependency, metrics.DEPENDENCY_UP.labels(dependency).set)


__all__ = ["SinkError", "run", "serve"]
