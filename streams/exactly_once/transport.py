"""Faust's transport, with fetches handed on as batches.

    main consumer (group, thread of Faust's) ── usage ──┐
    facts consumer (assigned by hand, main loop) ── facts ──► Faust's conductor ─► agents ─► lanes
    ends consumer ── end offsets of the facts at the time of each fetch

Two consumers because one sends no fetch to a node whose former answer is still buffered: facts
behind a backlog of usage came 1.6 to 2.4 s late (measured).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import (
    AIOKafkaConsumerThread,
    Consumer,
    ConsumerRebalanceListener,
    Producer,
    Transport,
)
from faust.types import TP, ConsumerMessage

from streams.exactly_once.assignor import CoLocatedAssignor
from streams.exactly_once.batches import Batch
from streams.exactly_once.config import RuntimeConfig
from streams.exactly_once.lanes import Lane

FETCH_WAIT_MS = 50
POLL_S = 0.01
"""A lane that gets room while a poll waits is served at the next poll."""
FACT_POLL_RECORDS = 2_000
FACT_REQUEST_TIMEOUT_MS = 15_000


class Runtime(Protocol):
    """What the transport needs of the runtime."""

    @property
    def config(self) -> RuntimeConfig: ...

    @property
    def client_settings(self) -> Mapping[str, Any]: ...

    def local_partitions(self) -> list[int]: ...

    async def attach(self, consumer: "BatchConsumer") -> None: ...

    async def detach(self) -> None: ...

    def start_lanes(self, partitions: Iterable[int]) -> None: ...

    async def end_lanes(self) -> None: ...

    def lanes_with_room(self) -> dict[TopicPartition, Lane]: ...

    async def wait_for_room(self, longest_s: float) -> None: ...

    async def fact_ends(self, partitions: Iterable[int]) -> dict[int, dict[str, int]]: ...

    def fatal(self, where: str, error: BaseException) -> None: ...


class Fetched(NamedTuple):
    """What one poll had of one partition; both positions are the consumer's own."""

    tp: TopicPartition
    records: list[Any]
    start: int
    end: int


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Pauses at once: nothing may be fetched before its lane has recovered."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._thread._ensure_consumer().pause(*assigned)
        await super().on_partitions_assigned(assigned)


class _ConsumerThread(AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        conf = self.app.conf
        runtime: Runtime = transport.runtime
        self._assignor = CoLocatedAssignor(
            [runtime.config.topic(name) for name in runtime.config.input_order],
            runtime.local_partitions,
        )
        return AIOKafkaConsumer(
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_records=runtime.config.batch_max_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            **runtime.client_settings,
        )

    async def fetch(self, active: frozenset[TopicPartition], poll_s: float) -> list[Fetched]:
        """What came of these partitions, without those where nothing moved."""
        return await self.call_thread(self._fetch, active, poll_s)  # type: ignore[no-any-return]

    async def _fetch(self, active: frozenset[TopicPartition], poll_s: float) -> list[Fetched]:
        assignment = self._ensure_consumer()._fetcher._subscriptions.subscription.assignment
        if not self.consumer.flow_active or not active <= assignment.tps:
            return []
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        for waiting in fetcher._records.values():
            unpacking = getattr(waiting, "_partition_records", None)
            if unpacking is not None:
                unpacking._consumer_record = _as_it_is
        states = {tp: assignment.state_value(tp) for tp in active}
        starts = {tp: state.position for tp, state in states.items()}
        with fetcher._subscriptions.fetch_context():
            records = await fetcher.fetched_records(
                active, timeout=poll_s, max_records=consumer._max_poll_records
            )
        return [
            Fetched(tp, records.get(tp, []), starts[tp], state.position)
            for tp, state in states.items()
            # Without records too: the position moves over markers of transactions.
            if state.position != starts[tp]
        ]

    async def seek_and_resume(self, tp: TopicPartition, offset: int) -> None:
        await self.call_thread(self._seek_and_resume, tp, offset)

    async def _seek_and_resume(self, tp: TopicPartition, offset: int) -> None:
        consumer = self._ensure_consumer()
        consumer.seek(tp, offset)
        consumer.resume(tp)


def _as_it_is(_tp: TopicPartition, record: Any) -> Any:
    """Leaves out aiokafka's copy of every record into a dataclass: 0.6 µs of CPU an event."""
    return record


class BatchConsumer(Consumer):  # type: ignore[misc]
    """Faust's consumer, delivering `Batch` envelopes. Commits are the lanes' business."""

    RebalanceListener: ClassVar[Any] = _Listener

    @property
    def runtime(self) -> Runtime:
        return self.transport.runtime  # type: ignore[no-any-return]

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def on_start(self) -> None:
        await super().on_start()
        await self.runtime.attach(self)

    async def on_stop(self) -> None:
        await self.runtime.detach()
        await super().on_stop()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.runtime.end_lanes()
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Starts the lanes and returns: Faust cancels a long seek silently after 90 s."""
        self.runtime.start_lanes({tp.partition for tp in self.assignment()})

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Nothing: offsets are part of the lanes' transactions."""
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's own watchdog reads offsets that Faust does not commit here."""

    async def start_fetching(self, tp: TopicPartition, offset: int) -> None:
        await self._thread.seek_and_resume(tp, offset)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 - the signature is Faust's
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Batches of the main input, of lanes that have room."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        lanes = self.runtime.lanes_with_room()
        if not lanes:
            await self.runtime.wait_for_room(POLL_S)
            return
        try:
            fetched = await self._thread.fetch(frozenset(lanes), POLL_S)
            if not fetched or self.should_stop:
                return
            required = await self.runtime.fact_ends(
                part.tp.partition for part in fetched if part.records
            )
        except KafkaError as error:
            # Faust would take 20 s to stop, and abandon transactions on the way.
            self.runtime.fatal("fetching", error)
            raise
        main = self.runtime.config.input_order[-1]
        for tp, records, start, end in fetched:
            lane = lanes[tp]
            batch = Batch(
                main,
                tp.partition,
                records,
                start,
                end,
                lane.number,
                required.get(tp.partition, {}),
            )
            lane.fetched(batch)
            yield tp, self.envelope(tp, batch)

    def envelope(self, tp: TopicPartition, batch: Batch) -> ConsumerMessage:
        """The batch as one message of Faust's."""
        offset = max(batch.end - 1, 0)
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            offset,
            0.0,
            0,
            None,
            None,
            batch,
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )


class _NoProducer(Producer):  # type: ignore[misc]
    """Faust's own producer, never connected: whatever is written, a lane's transaction writes."""

    async def on_start(self) -> None:
        """Connects nothing."""

    async def on_stop(self) -> None:
        """Has nothing to close."""

    async def flush(self) -> None:
        """Has nothing to send."""


class BatchTransport(Transport):  # type: ignore[misc]
    """Names the consumer; `runtime` is set by `ExactlyOnce`."""

    Consumer = BatchConsumer
    Producer = _NoProducer
    runtime: Runtime


class FactFetcher:
    """Fetches the inputs that come before usage, and knows where they end."""

    def __init__(self, runtime: Runtime, consumer: BatchConsumer) -> None:
        self._runtime = runtime
        self._faust = consumer
        self._lock = asyncio.Lock()
        self._lanes: dict[TopicPartition, Lane] = {}
        settings = {
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "fetch_max_wait_ms": FETCH_WAIT_MS,
            # The default of 40 s is how long a dead broker would go unnoticed.
            "request_timeout_ms": FACT_REQUEST_TIMEOUT_MS,
            "max_partition_fetch_bytes": 4 << 20,
            **runtime.client_settings,
        }
        self._facts = AIOKafkaConsumer(**settings)
        self._ends = AIOKafkaConsumer(**settings)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._facts.start()
        await self._ends.start()
        self._task = asyncio.create_task(self._pull(), name="facts")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._facts.stop()
        await self._ends.stop()

    async def ends(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """End offsets as they are now (of what is committed)."""
        return await self._ends.end_offsets(list(tps))  # type: ignore[no-any-return]

    async def starts(self, tps: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        return await self._ends.beginning_offsets(list(tps))  # type: ignore[no-any-return]

    async def follow(self, lane: Lane) -> None:
        """Adds a lane's fact partitions, from its positions on."""
        async with self._lock:
            for topic in self._runtime.config.input_order[:-1]:
                tp = TopicPartition(self._runtime.config.topic(topic), lane.partition)
                self._lanes[tp] = lane
            self._assign()

    async def unfollow_all(self) -> None:
        async with self._lock:
            self._lanes.clear()
            self._facts.assign([])

    def _assign(self) -> None:
        self._facts.assign(list(self._lanes))
        for tp, lane in self._lanes.items():
            self._facts.seek(tp, lane.fetch_positions[self._runtime.config.unprefixed(tp.topic)])

    async def _pull(self) -> None:
        try:
            while True:
                if not self._lanes:
                    await asyncio.sleep(POLL_S)
                    continue
                async with self._lock:
                    batches = await self._fetch()
                for tp, batch in batches:
                    await self._faust.callback(self._faust.envelope(tp, batch))
                # Lets `follow` have the lock.
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - without facts the worker must not go on
            self._runtime.fatal("facts", error)

    async def _fetch(self) -> list[tuple[TopicPartition, Batch]]:
        config = self._runtime.config
        room = [
            tp for tp, lane in self._lanes.items() if lane.has_room(config.unprefixed(tp.topic))
        ]
        if not room:
            await asyncio.sleep(POLL_S)
            return []
        fetched = await self._facts.getmany(
            *room, timeout_ms=FETCH_WAIT_MS, max_records=FACT_POLL_RECORDS
        )
        batches = []
        for tp in room:
            lane, topic = self._lanes[tp], config.unprefixed(tp.topic)
            end = await self._facts.position(tp)
            # Without records too: the position moves over markers of other transactions.
            if end > lane.fetch_positions[topic]:
                earlier = config.input_order[: config.input_order.index(topic)]
                batch = Batch(
                    topic,
                    tp.partition,
                    fetched.get(tp, []),
                    lane.fetch_positions[topic],
                    end,
                    lane.number,
                    await self._required(tp.partition, earlier) if earlier else {},
                )
                lane.fetched(batch)
                batches.append((tp, batch))
        return batches

    async def _required(self, partition: int, topics: Iterable[str]) -> dict[str, int]:
        config = self._runtime.config
        ends = await self.ends(TopicPartition(config.topic(name), partition) for name in topics)
        return {config.unprefixed(tp.topic): end for tp, end in ends.items()}
