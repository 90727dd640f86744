"""The runtime's front: configuration, lanes by partition, and what agents call."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import faust
import structlog
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from yarl import URL

from schemas.progress import TopicIds
from streams.exactly_once.batches import PASS_THROUGH, Batch
from streams.exactly_once.cluster_ids import read_ids
from streams.exactly_once.config import Committed, RuntimeConfig
from streams.exactly_once.errors import StoreFailed
from streams.exactly_once.fetching import IDLE_WAIT_S, POLL_S, Inputs
from streams.exactly_once.lanes import Decide, Lane
from streams.exactly_once.progress import StateLost
from streams.exactly_once.recovery import BelowLogStart
from streams.exactly_once.transport import BatchConsumer, BatchTransport

log = structlog.get_logger()

EXIT_FAILED = 70
EXIT_REFUSED = 2
"""As with wrong settings: another start will end alike until somebody has done something."""
WAITING_BATCHES = 2
"""Batches of the main input fetched and not decided yet, over all lanes."""


class ExactlyOnce:
    """Gives a Faust app exactly-once batches. See README.md.

    runtime = ExactlyOnce(app, config)

    @app.agent(runtime.input("usage"))
    async def rate(batches):
        async for batch in batches:
            runtime.submit(batch, decide)
    """

    def __init__(
        self,
        app: faust.App,
        config: RuntimeConfig,
        *,
        on_commit: Callable[[Committed], None] = lambda _: None,
        on_recovered: Callable[[int, int, float], None] = lambda *_: None,
        on_lanes: Callable[[Mapping[int, Lane], bool], None] = lambda *_: None,
    ) -> None:
        """`on_lanes` is given the lanes, and whether the group has assigned them: not so from a
        revocation to the next assignment, which may be of none."""
        self.config = config
        self.on_commit = on_commit
        self.on_recovered = on_recovered
        self.room = asyncio.Event()
        self.lanes: dict[int, Lane] = {}
        self._on_lanes = on_lanes
        self._app = app
        self._inputs: Inputs | None = None
        self._topic_ids: asyncio.Task[TopicIds] | None = None
        self.client_settings = dict(config.client_options)
        transport = BatchTransport([URL("kafka://")], app)
        transport.runtime = self
        app.transport = transport

    # ---- for agents

    def input(self, name: str) -> Any:
        """The Faust topic whose stream yields `Batch` envelopes."""
        return self._app.topic(
            self.config.topic(name),
            key_type=None,
            value_type=None,
            key_serializer=PASS_THROUGH,
            value_serializer=PASS_THROUGH,
        )

    def submit(self, batch: Batch, decide: Decide) -> None:
        """Has the batch decided and committed by its lane. Returns at once: the transport fetches
        only for lanes that have room, so queues stay within their bound."""
        lane = self.lanes.get(batch.partition)
        # A batch of a lane that has ended is dropped: the partition's next owner reads it again.
        if lane is not None and lane.number == batch.lane_number:
            lane.submit(batch, decide)

    # ---- for the transport

    async def attach(self, consumer: BatchConsumer) -> None:
        async def deliver(batch: Batch) -> None:
            await consumer.callback(consumer.envelope(batch))

        self._inputs = Inputs(self, deliver)
        await self._inputs.start()

    async def detach(self) -> None:
        await self.end_lanes()
        if self._inputs is not None:
            await self._inputs.stop()

    def start_lanes(self, partitions: Iterable[int]) -> None:
        """A lane for each assigned partition that has none."""
        for partition in sorted(partitions):
            if partition not in self.lanes:
                self.lanes[partition] = Lane(self, partition)
        self._on_lanes(self.lanes, True)

    def replace(self, lane: Lane) -> None:
        """A lane whose local store was damaged makes way for another, which begins without one."""
        if self.lanes.get(lane.partition) is lane:
            self.lanes[lane.partition] = Lane(self, lane.partition)
            self._on_lanes(self.lanes, True)

    async def end_lanes(self) -> None:
        """All of them: a rebalance revokes everything, and a lane is one assignment."""
        ending, self.lanes = self.lanes, {}
        if self._inputs is not None:
            await self._inputs.unfollow_all()
        await asyncio.gather(*(lane.end() for lane in ending.values()))
        self._on_lanes(self.lanes, False)

    def lanes_with_room(self) -> dict[TopicPartition, Lane]:
        """For which lanes the main input is to be fetched now: those that could decide at once
        come first, and no more is fetched ahead than keeps them busy, so that memory holds few
        records."""
        main = self.config.input_order[-1]
        waiting = sum(lane.waiting(main) for lane in self.lanes.values())
        if waiting >= WAITING_BATCHES:
            return {}
        lanes = [lane for lane in self.lanes.values() if lane.has_room(main)]
        idle = [lane for lane in lanes if not lane.is_busy]
        chosen = idle or ([] if waiting else lanes)
        return {TopicPartition(self.config.topic(main), lane.partition): lane for lane in chosen}

    async def wait_for_room(self, longest_s: float) -> None:
        self.room.clear()
        try:
            async with asyncio.timeout(longest_s):
                await self.room.wait()
        except TimeoutError:
            return

    async def fetch_main(self, lanes: Mapping[TopicPartition, Lane]) -> list[Batch]:
        """What came of the main input for these lanes."""
        # Those that are left out get room while it waits, and are to be asked for then.
        wait_s = IDLE_WAIT_S if len(lanes) == len(self.lanes) else POLL_S
        return await self._fetching.fetch_main(lanes, wait_s)

    @property
    def _fetching(self) -> Inputs:
        assert self._inputs is not None, "attached before any lane lives"
        return self._inputs

    # ---- for lanes

    async def topic_ids(self) -> TopicIds:
        """Of the inputs and changelogs: what local stores and the state must belong to."""
        if self._topic_ids is None:
            self._topic_ids = asyncio.create_task(self._read_topic_ids())
        return await asyncio.shield(self._topic_ids)

    async def _read_topic_ids(self) -> TopicIds:
        names = [self.config.topic(name) for name in self.config.input_order]
        names += [self.config.topic(name) for name in self.config.changelogs]
        client = AIOKafkaClient(**self.client_settings)
        await client.bootstrap()
        try:
            return await read_ids(client, names)
        finally:
            await client.close()

    async def start_positions(self, partition: int, committed: dict[str, int]) -> dict[str, int]:
        """Where to go on: the recovered progress, or the start of a topic never read before.

        Raises BelowLogStart where the broker has already deleted what is next.
        """
        positions = {}
        for name, start in (await self._fetching.starts(partition)).items():
            positions[name] = committed.get(name, start)
            if positions[name] < start:
                topic = self.config.topic(name)
                raise BelowLogStart(
                    f"{topic}[{partition}] is to be read from {positions[name]}, but begins at "
                    f"{start}: the records between were deleted by the topic's retention"
                )
        return positions

    @property
    def is_attached(self) -> bool:
        """Whether Faust's consumer has started, so that the inputs can be asked about."""
        return self._inputs is not None

    async def begin_fetching(self, lane: Lane) -> None:
        await self._fetching.follow(lane)
        self.room.set()

    async def input_ends(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        """Where all inputs end now, by unprefixed topic and partition."""
        numbers = list(partitions)
        return await self._fetching.ends(
            (name, n) for name in self.config.input_order for n in numbers
        )

    def local_partitions(self) -> list[int]:
        """Partitions that this worker's disk has a store of."""
        if not self.config.directory.is_dir():
            return []
        return [int(path.name[1:]) for path in self.config.directory.glob("p[0-9]*")]

    def fatal(self, where: str, error: BaseException) -> None:
        """Ends the process at once: the supervisor starts it again from what was committed."""
        # The texts of these errors are meant for people, and say all there is to say.
        is_worded = isinstance(error, (StoreFailed, StateLost))
        words = str(error) if is_worded else f"{type(error).__name__}: {error}"
        log.critical("worker ends", where=where, error=words)
        log.debug("traceback", exc_info=error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_REFUSED if isinstance(error, StateLost) else EXIT_FAILED)
