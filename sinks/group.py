"""The consumer group: which records are ours, from where on, and committing what was stored.

Guarantees: no record is handed out that lies behind a hole; every record carries the generation of
its assignment, and a commit of an old generation is not sent.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from schemas.settings import Settings
from schemas.topics import SINK_INPUTS
from sinks import metrics
from sinks.positions import first_position
from streams.kafka import client_options

NEVER_LEAVE_MS: Final = 2**31 - 1
"""Waiting for ClickHouse must not cost the partitions: nobody else could store the rows either."""

FETCH_BYTES_MAX: Final = 16 * 1024 * 1024
PARTITION_FETCH_BYTES_MAX: Final = 4 * 1024 * 1024
FETCH_WAIT_MS: Final = 500
REBALANCE_TIMEOUT_MS: Final = 30_000
FINISH_WAIT_S: Final = 5.0
"""How long a revocation waits for the block that is being inserted."""

log = structlog.get_logger("sink")


class Group(ConsumerRebalanceListener):  # type: ignore[misc]
    """Our part of the sink's consumer group. `generation` grows with every rebalance."""

    def __init__(self, settings: Settings, *, from_earliest: bool) -> None:
        self.generation = 0
        self.has_joined = False
        self.finished = asyncio.Event()
        """Set while no block is being stored."""
        self.finished.set()
        self._is_revoking = False
        self._from_earliest = from_earliest
        self._topics = [settings.topic(name) for name in SINK_INPUTS]
        self._stored: dict[TopicPartition, int] = {}
        self._read: dict[TopicPartition, int] = {}
        session_ms = int(settings.session_timeout_s * 1000)
        self._consumer = AIOKafkaConsumer(
            **client_options(settings),
            group_id=f"{settings.app_id}-sink",
            group_instance_id=f"{settings.instance_id}-sink",
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=max(1, session_ms // 3),
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=NEVER_LEAVE_MS,
            fetch_max_bytes=FETCH_BYTES_MAX,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES_MAX,
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )

    async def start(self) -> None:
        """Raises KafkaError while the brokers do not answer; may be called again."""
        await self._consumer.start()
        self._consumer.subscribe(self._topics, listener=self)

    async def stop(self) -> None:
        await self._consumer.stop()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """From here on, what was read but not stored belongs to whoever gets the partitions."""
        self._is_revoking = True
        if revoked:
            try:
                async with asyncio.timeout(FINISH_WAIT_S):
                    await self.finished.wait()
            except TimeoutError:
                log.warning("partitions revoked before their rows were acknowledged")
        self.generation += 1
        self._is_revoking = False
        self._stored.clear()
        self._read.clear()
        metrics.LAG.clear()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.has_joined = True
        log.info("partitions assigned", count=len(assigned))

    def may_store(self, generation: int) -> bool:
        """Whether a block of this generation is still worth beginning."""
        return generation == self.generation and not self._is_revoking

    async def fetch(self, rows_max: int, wait_s: float) -> Mapping[TopicPartition, list[Any]]:
        """Records by partition, none after `wait_s`. Valid for `generation` as it is on return.

        Raises `PositionLostError`, or KafkaError when it is worth another try.
        """
        try:
            fetched = await self._consumer.getmany(
                timeout_ms=int(wait_s * 1000), max_records=rows_max
            )
        except NoOffsetForPartitionError as error:
            await self._begin(dict.fromkeys(error.args))
            return {}
        except OffsetOutOfRangeError as error:
            await self._begin(dict(error.args[0]))
            return {}
        for partition, records in fetched.items():
            self._read[partition] = records[-1].offset + 1
        result: Mapping[TopicPartition, list[Any]] = fetched
        return result

    async def commit(self, generation: int, positions: Mapping[TopicPartition, int]) -> bool:
        """Whether the positions were committed; not, where the partitions may be another's now.

        Raises KafkaError when it is worth another try.
        """
        if generation != self.generation:
            return False
        try:
            await self._consumer.commit(dict(positions))
        except (CommitFailedError, IllegalStateError) as error:
            metrics.COMMIT_FAILURES.inc()
            log.warning("commit refused, the rows will be sent again", problem=str(error))
            return False
        if generation == self.generation:
            self._stored.update(positions)
        return True

    async def lags(self) -> dict[TopicPartition, int]:
        """Records not stored yet, by partition. Raises KafkaError while no broker answers."""
        partitions = self._consumer.assignment()
        if not partitions:
            await self._consumer.topics()
            return {}
        ends = await self._consumer.end_offsets(partitions)
        lags = {}
        for partition, end in ends.items():
            position = await self._position(partition)
            if position is not None:
                lags[partition] = max(0, end - position)
        return lags

    async def missing_topics(self) -> list[str]:
        """Of our topics, those that do not exist. Raises KafkaError as `lags` does."""
        unknown = [name for name in self._topics if not self._consumer.partitions_for_topic(name)]
        existing = await self._consumer.topics() if unknown else set()
        return [name for name in unknown if name not in existing]

    async def _position(self, partition: TopicPartition) -> int | None:
        """Up to where everything is stored, transaction markers included."""
        stored = self._stored.get(partition)
        if self._read.get(partition) != stored:
            return stored if stored is not None else await self._consumer.committed(partition)
        try:
            async with asyncio.timeout(1.0):
                return int(await self._consumer.position(partition))
        except (TimeoutError, IllegalStateError):
            return stored

    async def _begin(self, positions: Mapping[TopicPartition, int | None]) -> None:
        starts = await self._consumer.beginning_offsets(list(positions))
        ends = await self._consumer.end_offsets(list(positions))
        for partition, position in positions.items():
            name = f"{partition.topic}/{partition.partition}"
            begin, skipped = first_position(
                name, position, starts[partition], ends[partition], self._from_earliest
            )
            if skipped:
                metrics.SKIPPED.inc(skipped)
                log.error("records were lost and are skipped", partition=name, records=skipped)
            self._consumer.seek(partition, begin)
