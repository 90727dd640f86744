"""Publishes facts in the order of their versions. Each is sent until the broker acknowledges it,
and the worker applies it once.

Before each round the ends of the topics are compared with the positions where the last round left
them (`compare`). That is one quick question to the broker, and it keeps a restored database from
publishing over what it forgot.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from sqlalchemy import select, update

from api.clock import Clock
from api.errors import Refused
from api.outbox import compare, metrics
from api.outbox.compare import Halt
from api.storage.ledgers import OutboxFact, PublishingHalt
from api.storage.store import Store
from schemas import topics
from schemas.settings import Settings
from streams.kafka import client_options

ROUND_FACTS: Final = 1_000
REQUEST_TIMEOUT_MS: Final = 10_000
LINGER_MS: Final = 0
WRITE_WAIT_S: Final = 60.0
"""What is published is noted behind any change that is being written: nobody waits for it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A fact that is committed but not known to be published."""

    id: int
    topic: str
    organization_id: str
    payload: bytes
    created_at: Any


@dataclass
class FactPublisher:
    """The clients of one publishing process. Every method belongs to one event loop."""

    settings: Settings
    store: Store
    clock: Clock
    halts: list[Halt] = field(default_factory=list)
    """As they were when the topics were last compared."""
    _producer: Any = None
    _consumer: Any = None
    _positions: dict[TopicPartition, int] = field(default_factory=dict)

    async def open(self) -> None:
        """Connects and compares every partition with the database.

        Raises KafkaError where the broker is away.
        """
        common = {
            **client_options(self.settings),
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "client_id": f"{self.settings.app_id}-outbox",
        }
        self._consumer = AIOKafkaConsumer(
            **common, enable_auto_commit=False, fetch_max_wait_ms=50, auto_offset_reset="none"
        )
        await self._consumer.start()
        self._producer = AIOKafkaProducer(
            **common, acks="all", enable_idempotence=True, linger_ms=LINGER_MS
        )
        await self._producer.start()
        await asyncio.to_thread(self.reload)
        await self.compare()

    def reload(self) -> None:
        """Positions and halts as they are in the database, which somebody else may have changed."""
        self._positions = {}
        with self.store.read() as session:
            for topic in topics.FACTS:
                name = self.settings.topic(topic)
                known = compare.positions(session, name)
                for partition in range(self.settings.partitions):
                    self._positions[TopicPartition(name, partition)] = known.get(partition, 0)
            self.halts = compare.halts(session)

    async def close(self) -> None:
        for client in (self._producer, self._consumer):
            if client is not None:
                await client.stop()
        self._producer = self._consumer = None

    async def compare(self) -> None:
        """Reads whatever has come into the topics since, and halts whom it concerns."""
        ends = await self._consumer.end_offsets(list(self._positions))
        for partition, end in ends.items():
            position = self._positions[partition]
            if end > position:
                records = await compare.records_between(self._consumer, partition, position, end)
                await asyncio.to_thread(self._write_checked, partition, records, end)
            elif end < position:
                await asyncio.to_thread(self._write_behind, partition, end)
            self._positions[partition] = end

    def _write_checked(
        self, partition: TopicPartition, records: Sequence[tuple[int, bytes]], end: int
    ) -> None:
        topic = self._topic(partition)
        with self.store.write(wait_s=WRITE_WAIT_S) as session:
            compare.check_known(session, topic, partition.partition, records, self.clock())
            compare.keep_position(session, partition.topic, partition.partition, end)
            self.halts = compare.halts(session)

    def _write_behind(self, partition: TopicPartition, end: int) -> None:
        topic, position = self._topic(partition), self._positions[partition]
        with self.store.write(wait_s=WRITE_WAIT_S) as session:
            halts = compare.behind(
                session, partition, topic, end, position, self.settings.partitions
            )
            compare.write_halts(session, halts, self.clock())
            compare.keep_position(session, partition.topic, partition.partition, end)
            self.halts = compare.halts(session)

    def _topic(self, partition: TopicPartition) -> str:
        return str(partition.topic).removeprefix(self.settings.topic_prefix)

    async def publish_round(self) -> int:
        """Publishes what waits, at most `ROUND_FACTS`; how many that were.

        Raises KafkaError where the broker did not acknowledge: close, open and try again.
        """
        if not await asyncio.to_thread(self._read_waiting):
            return 0
        await self.compare()
        # Read only now, because an organization that was just halted must not be published.
        waiting = await asyncio.to_thread(self._read_waiting)
        if not waiting:
            return 0
        sent = []
        for fact in waiting:
            future = await self._producer.send(
                self.settings.topic(fact.topic), fact.payload, key=fact.organization_id.encode()
            )
            sent.append(future)
        acknowledged = await asyncio.gather(*sent)
        now = self.clock()
        for fact in waiting:
            metrics.DELAY.observe(max(0.0, (now - fact.created_at).total_seconds()))
            metrics.PUBLISHED.labels(fact.topic).inc()
        await self._write_down(waiting, acknowledged)
        return len(waiting)

    def _read_waiting(self) -> list[Waiting]:
        columns = (
            OutboxFact.id,
            OutboxFact.topic,
            OutboxFact.organization_id,
            OutboxFact.payload,
            OutboxFact.created_at,
        )
        with self.store.read() as session:
            rows = session.execute(
                select(*columns)
                .where(
                    OutboxFact.published_at.is_(None),
                    OutboxFact.organization_id.not_in(select(PublishingHalt.organization_id)),
                )
                .order_by(OutboxFact.id)
                .limit(ROUND_FACTS)
            )
            return [Waiting(*row) for row in rows]

    async def _write_down(self, waiting: Sequence[Waiting], acknowledged: Sequence[Any]) -> None:
        offsets: dict[TopicPartition, list[int]] = defaultdict(list)
        for metadata in acknowledged:
            offsets[metadata.topic_partition].append(metadata.offset)
        advanced: dict[TopicPartition, int] = {}
        for partition, acknowledged_offsets in offsets.items():
            start = self._positions[partition]
            if sorted(acknowledged_offsets) == list(
                range(start, start + len(acknowledged_offsets))
            ):
                advanced[partition] = start + len(acknowledged_offsets)
        ids = [fact.id for fact in waiting]
        await asyncio.to_thread(self._mark, ids, advanced)
        # Where somebody else's records lie among ours, the next comparison reads them.
        self._positions |= advanced

    def _mark(self, ids: list[int], advanced: dict[TopicPartition, int]) -> None:
        with self.store.write(wait_s=WRITE_WAIT_S) as session:
            session.execute(
                update(OutboxFact)
                .where(OutboxFact.id.in_(ids))
                .values(published_at=self.clock())
                .execution_options(synchronize_session=False)
            )
            for partition, end in advanced.items():
                compare.keep_position(session, partition.topic, partition.partition, end)


TRANSIENT: Final = (KafkaError, OSError, TimeoutError, Refused)
"""What may be over in a moment: the broker or the database is away."""
