"""A lane: one assignment of one partition number, and the only writer of that partition.

    opening ──fence, recover──► running ──revoked──► ended
       └────────────── revoked ────────────────────────┘

One transactional producer, one task, one transaction at a time (`commits.py`). Whatever fails here
ends the process: state in memory is never ahead of what was committed. Only where the local store
turns out to be damaged, the lane makes way for another, which rebuilds it.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer

from streams.exactly_once.batches import Batch
from streams.exactly_once.cluster_ids import tag
from streams.exactly_once.commits import Commits
from streams.exactly_once.config import Committed
from streams.exactly_once.errors import StoreDamaged
from streams.exactly_once.host import Host
from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.progress import committed_positions
from streams.exactly_once.recovery import recover
from streams.exactly_once.transaction import Transaction
from streams.wire.record_batch import Record

log = structlog.get_logger()

Decide = Callable[[Iterable[Record], Transaction], None]

QUEUE_BATCHES: Final = 2
"""Batches of the main input that wait to be decided, a lane; one more is being committed. Not one:
the second shows that the first was lost on the way."""
QUEUE_FACT_BATCHES: Final = 8
"""The same for each of the other inputs."""
_numbers = itertools.count(1)
END_GRACE_S: Final = 5.0
"""How long a revoked lane may take to finish the transaction it is in."""


class Lane:
    """See the module's text. Created by the runtime at assignment, ended at revocation."""

    def __init__(self, runtime: Host, partition: int) -> None:
        self.partition = partition
        self.number = next(_numbers)
        """Of this process: tells one assignment of the partition from the next."""
        self.running = False
        self.positions: dict[str, int] = {}
        self._runtime = runtime
        self._config = runtime.config
        self._inbox: dict[str, deque[tuple[Batch, Decide]]] = {
            topic: deque() for topic in self._config.input_order
        }
        self._waiting = dict.fromkeys(self._config.input_order, 0)
        self._wake = asyncio.Event()
        self._in_transaction = asyncio.Lock()
        self._next_tick_s = 0.0
        self._tick_after: dict[str, int] | None = None
        """Where the inputs ended when the clock struck; None while it is not due."""
        self._struck_at = self._config.clock()
        self._producer: AIOKafkaProducer | None = None
        self._store: LocalStore | None = None
        self._commits: Commits | None = None
        self._task = asyncio.create_task(self._live(), name=f"lane-{partition}")

    # ---- what the transport asks

    @property
    def is_busy(self) -> bool:
        """Whether it is in a transaction."""
        return self._in_transaction.locked()

    def waiting(self, topic: str) -> int:
        """Batches of this input that were fetched and are not decided yet."""
        return self._waiting[topic]

    def has_room(self, topic: str) -> bool:
        limit = QUEUE_BATCHES if topic == self._config.input_order[-1] else QUEUE_FACT_BATCHES
        return self.running and self._waiting[topic] < limit

    def fetched(self, batch: Batch) -> None:
        """Books a batch that is on its way through Faust."""
        self._waiting[batch.topic] += 1

    @property
    def oldest_queued_ms(self) -> int:
        """Append time of the oldest record of the main input that waits here, 0 for none."""
        waiting = self._inbox[self._config.input_order[-1]]
        return waiting[0][0].records.oldest_ms if waiting else 0

    def submit(self, batch: Batch, decide: Decide) -> None:
        """Queues a batch."""
        self._inbox[batch.topic].append((batch, decide))
        self._wake.set()

    # ---- life

    async def _live(self) -> None:
        try:
            try:
                await self._open()
                await self._work()
            except StoreDamaged as damage:
                await self._make_way(str(damage))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the process must end
            self._runtime.fatal(f"partition {self.partition}", error)

    async def _work(self) -> None:
        while True:
            work = self._next_work()
            if work is None:
                await self._wait()
                continue
            async with self._in_transaction:
                await work()

    async def _open(self) -> None:
        started = time.monotonic()
        config = self._config
        self._producer = AIOKafkaProducer(
            transactional_id=f"{config.app_id}-{self.partition}",
            transaction_timeout_ms=int(config.transaction_timeout_s * 1000),
            compression_type=config.compression,
            max_request_size=64 << 20,
            linger_ms=0,
            # A 4.x broker answers NOT_ENOUGH_REPLICAS while the last markers are written.
            retry_backoff_ms=5,
            **self._runtime.client_settings,
        )
        await self._producer.start()
        # Fenced from here on: no former owner can commit any more.
        topics = await self._runtime.topic_ids()
        self._store = LocalStore(
            config.directory / f"p{self.partition:05d}",
            tag=tag(topics),
            window_ms=config.seen_window_ms,
            max_age_s=config.store_max_age_s,
        )
        recovered_records = await recover(
            self._store,
            self.partition,
            topic_names={name: config.topic(name) for name in config.changelogs},
            seen_topic=config.seen_topic,
            client_settings=self._runtime.client_settings,
        )
        self._commits = Commits(config, self.partition, self._producer, self._store, topics)
        positions = committed_positions(self._store, config, topics)
        self.positions = await self._runtime.start_positions(self.partition, positions)
        await self._runtime.begin_fetching(self)
        self.running = True
        seconds = time.monotonic() - started
        self._runtime.on_recovered(self.partition, recovered_records, seconds)

    async def _make_way(self, damage: str) -> None:
        """For a lane that begins without a local store."""
        self.running = False
        store, self._store = self._store, None
        if store is not None:
            store.destroy(damage)
        if self._producer is not None:
            await _stop_quietly(self._producer)
        self._runtime.replace(self)

    async def end(self) -> None:
        """Finishes the transaction it is in, drops what is queued, closes everything."""
        self.running = False
        try:
            async with asyncio.timeout(END_GRACE_S):
                await self._in_transaction.acquire()
        except TimeoutError:
            log.warning("transaction abandoned at revocation", partition=self.partition)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._store is not None:
            self._store.close()
        if self._producer is not None:
            # Its open transaction, if any, is aborted by the next owner's fence.
            await _stop_quietly(self._producer)

    def _next_work(self) -> Callable[[], Awaitable[None]] | None:
        for topic, waiting in self._inbox.items():
            if waiting and self._may_decide(waiting[0][0]):
                return partial(self._process, topic)
        if self._config.on_tick is None:
            return None
        if self._tick_after is not None:
            is_reached = all(self.positions[name] >= end for name, end in self._tick_after.items())
            return partial(self._tick, self._config.on_tick) if is_reached else None
        return self._prepare_tick if time.monotonic() >= self._next_tick_s else None

    def _may_decide(self, batch: Batch) -> bool:
        return all(self.positions[topic] >= end for topic, end in batch.required.items())

    async def _wait(self) -> None:
        self._wake.clear()
        is_timed = self._config.on_tick is not None and self._tick_after is None
        timeout = max(0.0, self._next_tick_s - time.monotonic()) if is_timed else None
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return

    # ---- one transaction

    async def _process(self, topic: str) -> None:
        batch, decide = self._inbox[topic].popleft()
        if batch.start != self.positions[topic]:
            raise RuntimeError(
                f"a batch of {topic} starts at {batch.start}, but {self.positions[topic]} is next: "
                "records between them were lost on the way"
            )
        started = time.perf_counter()
        assert self._commits is not None
        transaction = self._commits.begin()
        self.positions[topic] = batch.end
        self._waiting[topic] -= 1
        self._runtime.room.set()
        if not batch.records:
            return
        decide(batch.records, transaction)
        decided = time.perf_counter()
        await self._commits.commit(transaction, self.positions)
        self._runtime.room.set()
        self._report(transaction, batch, decided - started, time.perf_counter() - decided)

    async def _prepare_tick(self) -> None:
        """The clock waits for all that was in the topics when it struck: what was used in time
        must not lose its credits because the worker was behind. Nor may it to what falls due while
        the clock waits, so it is the time of the strike that counts."""
        struck_at = self._config.clock()
        ends = await self._runtime.input_ends([self.partition])
        self._struck_at = struck_at
        self._tick_after = {topic: end for (topic, _), end in ends.items()}

    async def _tick(self, on_tick: Callable[[Transaction, datetime], bool]) -> None:
        assert self._commits is not None
        transaction = self._commits.begin()
        if not on_tick(transaction, self._struck_at):
            self._tick_after = None
            self._next_tick_s = time.monotonic() + self._config.tick_interval_s
        if transaction.records or transaction.state.has_changes:
            await self._commits.commit(transaction, self.positions)
            self._report(transaction, None, 0.0, 0.0)

    def _report(
        self, transaction: Transaction, batch: Batch | None, decide_s: float, commit_s: float
    ) -> None:
        self._runtime.on_commit(
            Committed(
                partition=self.partition,
                topic=batch.topic if batch else "",
                inputs=batch.records.count if batch else 0,
                decide_s=decide_s,
                commit_s=commit_s,
                counts=transaction.metrics,
            )
        )


async def _stop_quietly(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(END_GRACE_S):
            await producer.stop()
    except Exception as error:  # noqa: BLE001 - it is fenced or unreachable, and done with
        log.debug("producer did not stop cleanly", error=repr(error))
