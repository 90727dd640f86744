"""Faust's transport: membership of the group, and fetches handed on as batches.

The group's consumer lives in a thread of Faust's, where heartbeats go on while the main loop
decides; it fetches nothing (`fetching.py` says why).
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any, ClassVar

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
from streams.exactly_once.fetching import IDLE_WAIT_S, POLL_S
from streams.exactly_once.host import Host
from streams.wire.whole_batches import note_poll


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Pauses everything at once, for good: this consumer is to fetch nothing."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._thread._ensure_consumer().pause(*assigned)
        await super().on_partitions_assigned(assigned)


class _ConsumerThread(AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        conf = self.app.conf
        runtime: Host = transport.runtime
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
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            **runtime.client_settings,
        )

    def note_poll(self) -> None:
        note_poll(self._ensure_consumer())


class BatchConsumer(Consumer):  # type: ignore[misc]
    """Faust's consumer, delivering `Batch` envelopes. Commits are the lanes' business."""

    RebalanceListener: ClassVar[Any] = _Listener

    @property
    def runtime(self) -> Host:
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

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        await super().on_partitions_assigned(assigned, generation_id)
        if not assigned:
            # With nothing assigned, Faust does not call `perform_seek`.
            self.runtime.start_lanes(())

    async def perform_seek(self) -> None:
        """Starts the lanes and returns: Faust cancels a long seek silently after 90 s."""
        self.runtime.start_lanes({tp.partition for tp in self.assignment()})

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Nothing: offsets are part of the lanes' transactions."""
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's own watchdog reads offsets that Faust does not commit here."""

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 - the signature is Faust's
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Batches of the main input, of lanes that have room."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        lanes = self.runtime.lanes_with_room()
        if not lanes:
            await self.runtime.wait_for_room(POLL_S if self.assignment() else IDLE_WAIT_S)
            return
        self._thread.note_poll()
        try:
            batches = await self.runtime.fetch_main(lanes)
        except KafkaError as error:
            # Faust would take 20 s to stop, and abandon transactions on the way.
            self.runtime.fatal("fetching", error)
            raise
        for batch in batches:
            message = self.envelope(batch)
            lanes[message.tp].fetched(batch)
            yield message.tp, message

    def envelope(self, batch: Batch) -> ConsumerMessage:
        """The batch as one message of Faust's."""
        tp = TopicPartition(self.runtime.config.topic(batch.topic), batch.partition)
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
    runtime: Host
