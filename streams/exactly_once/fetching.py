"""Reads the inputs' records with consumers that are assigned by hand and live on the main loop.

    main reader ── usage ──► Faust's fetch loop (`transport.BatchConsumer.getmany`)
    facts reader ── facts ──► a task of its own ──► Faust's conductor
    ends consumer ── where the inputs end

The group's consumer does not read them, because it lives in a thread of Faust's, and handing
records over cost CPU and pauses. Records stay packed until they are decided: see `batches.Packed`.
There are two readers because a consumer sends no fetch to a node whose former answer is still
buffered: with one, facts behind a backlog of usage came 1.6 to 2.4 s late (measured).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.exactly_once.batches import Batch, Packed
from streams.exactly_once.host import Host
from streams.exactly_once.lanes import Lane
from streams.wire.whole_batches import fetch_batches, hand_out_whole_batches

FETCH_WAIT_MS = 50
"""How long the broker may hold back an answer while a former one is buffered: what is buffered is
asked for again only when this answer has come."""
IDLE_WAIT_S = 1.0
"""The same, and how long a poll waits, while nothing is buffered: whatever comes ends the wait."""
FETCH_BYTES = 2 << 20
"""Of one partition in one answer, compressed; a larger single record comes all the same."""
POLL_S = 0.01
"""A lane that gets room while a poll waits is served at the next poll."""
FACT_POLL_RECORDS = 2_000
REQUEST_TIMEOUT_MS = 15_000
"""aiokafka's 40 s is how long a dead broker would go unnoticed."""


class Fetched(NamedTuple):
    """What one poll had of one partition; both positions are the consumer's own."""

    tp: TopicPartition
    records: Packed
    start: int
    end: int
    """Beyond the last record where markers of transactions follow it."""


class Reader:
    """A consumer of the partitions that it was told to follow, each from a given position on."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._consumer = AIOKafkaConsumer(
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
            **settings,
        )
        # The assignment must not change under a poll.
        self._lock = asyncio.Lock()
        self._next: dict[TopicPartition, int] = {}
        self._follows = 0
        self._arrived = asyncio.Event()

    async def start(self) -> None:
        await self._consumer.start()
        hand_out_whole_batches(
            self._consumer, self._arrived, FETCH_WAIT_MS, int(IDLE_WAIT_S * 1000)
        )

    async def stop(self) -> None:
        await self._consumer.stop()

    async def follow(self, positions: Mapping[TopicPartition, int]) -> None:
        """Adds partitions; the others go on where they are."""
        async with self._lock:
            self._next |= positions
            self._end_waits()
            self._consumer.assign(list(self._next))
            for tp, position in self._next.items():
                self._consumer.seek(tp, position)

    async def unfollow_all(self) -> None:
        async with self._lock:
            self._next.clear()
            self._end_waits()
            self._consumer.assign([])

    async def fetch(
        self, partitions: Set[TopicPartition], wait_s: float, max_records: int
    ) -> list[Fetched]:
        """What came of these partitions, without those where nothing moved: about `max_records`,
        by whole record batches. Waits so long for the first, but not beyond a change of what is
        followed. Raises KafkaError."""
        until_s, follows = time.monotonic() + wait_s, self._follows
        while True:
            self._arrived.clear()
            fetched = await self._drain(partitions, max_records)
            left_s = until_s - time.monotonic()
            if fetched or left_s <= 0 or follows != self._follows:
                return fetched
            try:
                # The reader waits without the lock, which other callers need meanwhile.
                async with asyncio.timeout(left_s):
                    await self._arrived.wait()
            except TimeoutError:
                return []

    def _end_waits(self) -> None:
        self._follows += 1
        self._arrived.set()

    async def _drain(self, partitions: Set[TopicPartition], max_records: int) -> list[Fetched]:
        async with self._lock:
            if not partitions <= self._next.keys():
                # Some partitions were revoked since the caller asked for them.
                return []
            starts = {tp: await self._consumer.position(tp) for tp in partitions}
            batches = await fetch_batches(self._consumer, partitions, max_records)
            fetched = []
            for tp, start in starts.items():
                end = await self._consumer.position(tp)
                if end != start:
                    fetched.append(Fetched(tp, Packed(batches.get(tp, ()), start), start, end))
                    self._next[tp] = end
            return fetched


class Inputs:
    """All inputs of a worker's lanes: `usage` when asked, facts as they come; and their ends."""

    def __init__(self, host: Host, deliver: Callable[[Batch], Awaitable[None]]):
        """`deliver` gets each batch of facts, booked with its lane."""
        self._host = host
        self._config = host.config
        self._deliver = deliver
        self._lanes: dict[TopicPartition, Lane] = {}
        """By fact partition."""
        self._main = Reader(host.client_settings)
        self._facts = Reader(host.client_settings)
        self._ends = AIOKafkaConsumer(
            # Also what a transaction has written that is not decided yet: what others append behind
            # it came before the clock struck, too.
            isolation_level="read_uncommitted",
            enable_auto_commit=False,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **host.client_settings,
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        for consumer in (self._main, self._facts, self._ends):
            await consumer.start()
        self._task = asyncio.create_task(self._pull_facts(), name="facts")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for consumer in (self._main, self._facts, self._ends):
            await consumer.stop()

    async def follow(self, lane: Lane) -> None:
        """Adds a lane's partitions, from its positions on."""
        *facts, main = (
            (TopicPartition(self._config.topic(name), lane.partition), lane.positions[name])
            for name in self._config.input_order
        )
        await self._facts.follow(dict(facts))
        self._lanes |= {tp: lane for tp, _ in facts}
        await self._main.follow(dict([main]))

    async def unfollow_all(self) -> None:
        self._lanes.clear()
        await self._main.unfollow_all()
        await self._facts.unfollow_all()

    async def fetch_main(self, lanes: Mapping[TopicPartition, Lane], wait_s: float) -> list[Batch]:
        """Batches of the main input for these lanes, to be booked with `Lane.fetched`; waits so
        long for the first."""
        fetched = await self._main.fetch(lanes.keys(), wait_s, self._config.batch_max_records)
        return await self._batches(fetched, lanes)

    async def ends(self, inputs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Where these inputs end now, by unprefixed topic and partition; what transactions have
        written and not committed yet counts."""
        inputs_by_partition = {
            TopicPartition(self._config.topic(name), n): (name, n) for name, n in inputs
        }
        ends = (
            await self._ends.end_offsets(list(inputs_by_partition)) if inputs_by_partition else {}
        )
        return {inputs_by_partition[tp]: end for tp, end in ends.items()}

    async def starts(self, partition: int) -> dict[str, int]:
        """Where the broker's log of each input begins, by unprefixed topic."""
        inputs_by_partition = {
            TopicPartition(self._config.topic(name), partition): name
            for name in self._config.input_order
        }
        starts = await self._ends.beginning_offsets(list(inputs_by_partition))
        return {inputs_by_partition[tp]: start for tp, start in starts.items()}

    async def _pull_facts(self) -> None:
        try:
            while True:
                for batch in await self._fetch_facts():
                    await self._deliver(batch)
        except Exception as error:  # noqa: BLE001 - without facts the worker must not go on
            self._host.fatal("facts", error)

    async def _fetch_facts(self) -> list[Batch]:
        lanes = {
            tp: lane
            for tp, lane in self._lanes.items()
            if lane.has_room(self._config.unprefixed(tp.topic))
        }
        if not lanes:
            await asyncio.sleep(POLL_S if self._lanes else FETCH_WAIT_MS / 1000)
            return []
        # A lane gets room again without waking this task, so the wait is short while one has none.
        wait_s = IDLE_WAIT_S if len(lanes) == len(self._lanes) else FETCH_WAIT_MS / 1000
        fetched = await self._facts.fetch(lanes.keys(), wait_s, FACT_POLL_RECORDS)
        batches = await self._batches(fetched, lanes)
        for part, batch in zip(fetched, batches, strict=True):
            lanes[part.tp].fetched(batch)
        return batches

    async def _batches(
        self, fetched: list[Fetched], lanes: Mapping[TopicPartition, Lane]
    ) -> list[Batch]:
        """With where the inputs before each one's own end by now; it waits for those only if it
        has something to decide."""
        order = self._config.input_order
        earlier = {
            part.tp: order[: order.index(self._config.unprefixed(part.tp.topic))]
            for part in fetched
            if part.records
        }
        ends = await self.ends(
            (name, tp.partition) for tp, names in earlier.items() for name in names
        )
        return [
            Batch(
                self._config.unprefixed(part.tp.topic),
                part.tp.partition,
                part.records,
                part.start,
                part.end,
                lanes[part.tp].number,
                {name: ends[name, part.tp.partition] for name in earlier.get(part.tp, ())},
            )
            for part in fetched
        ]
