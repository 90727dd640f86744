"""The transaction half of a lane: what was decided is committed by Kafka, whole or not at all, and
only then written to the local store.

It needs a producer that has fenced the partition's former owner, and a store that was recovered
after that. Whatever fails leaves it unusable: what was committed is to be recovered then.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition

from schemas.progress import Progress, TopicIds
from streams.exactly_once.config import RuntimeConfig
from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.progress import PROGRESS_KEY, TOPICS_KEY
from streams.exactly_once.seen import pack
from streams.exactly_once.segments import ROW_BYTES
from streams.exactly_once.state import PartitionState
from streams.exactly_once.transaction import Transaction

SEEN_RECORD_BYTES: Final = ROW_BYTES * 40_000
"""Of a record of seen ids: a topic takes no record of any size."""
APPENDED: Final = 1
"""`timestamp_type` of what a broker stamped itself (`LogAppendTime`)."""


class Commits:
    """One partition's transactions, one at a time."""

    def __init__(
        self,
        config: RuntimeConfig,
        partition: int,
        producer: AIOKafkaProducer,
        store: LocalStore,
        topics: TopicIds,
    ) -> None:
        self._config = config
        self._partition = partition
        self._producer = producer
        self._store = store
        self._state = PartitionState(store, config.codec)
        self._topics: bytes | None = msgspec.json.encode(topics)
        """To be written with the next transaction, unless it is there."""
        if store.get(TOPICS_KEY) == self._topics:
            self._topics = None

    def begin(self) -> Transaction:
        """For one decision to fill."""
        config = self._config
        return Transaction(
            self._partition,
            self._state,
            self._store,
            config.clock(),
            config.compression,
            config.batch_bytes_max,
        )

    async def commit(self, transaction: Transaction, positions: Mapping[str, int]) -> None:
        """Commits what the transaction holds, with the inputs' positions after it."""
        config, producer, store = self._config, self._producer, self._store
        changes = self._changes(positions)
        for changelog, key, value in changes:
            transaction.emit(changelog, key, value)
        packed = pack(transaction.seen)
        seen = [
            packed[start : start + SEEN_RECORD_BYTES]
            for start in range(0, len(packed), SEEN_RECORD_BYTES)
        ]
        for rows in seen:
            transaction.emit(config.seen_topic, None, rows)

        await producer.begin_transaction()
        sent: list[tuple[str, Any, int]] = []
        for topic, partition, builder in transaction.batches:
            future = await producer.send_batch(builder, config.topic(topic), partition=partition)
            if topic in config.changelogs:
                sent.append((topic, future, builder.record_count()))
            else:
                sent.append(("", future, 0))
        await producer.send_offsets_to_transaction(
            {
                TopicPartition(config.topic(topic), self._partition): position
                for topic, position in positions.items()
            },
            config.app_id,
        )
        results = await asyncio.gather(*(future for _, future, _ in sent))
        await producer.commit_transaction()

        written = {
            # The record after the batch is the transaction's marker.
            topic: result.offset + count + 1
            for (topic, _, count), result in zip(sent, results, strict=True)
            if topic
        }
        # Record by record with the broker's times, as recovery would: both come to the same files.
        now_ms = int(transaction.now.timestamp() * 1000)
        times = [
            result.timestamp if result.timestamp_type == APPENDED else now_ms
            for (topic, _, count), result in zip(sent, results, strict=True)
            for _ in range(count if topic == config.seen_topic else 0)
        ]
        for rows, at_ms in zip(seen, times, strict=True):
            store.seen.insert_packed(rows, at_ms)
        store.write(((key, value) for _, key, value in changes), written)
        self._state.committed()
        self._topics = None

    def _changes(self, positions: Mapping[str, int]) -> list[tuple[str, bytes, bytes | None]]:
        topic = self._config.state_topic
        changes = self._state.changes()
        changes.append((topic, PROGRESS_KEY, msgspec.json.encode(Progress(dict(positions)))))
        if self._topics is not None:
            changes.append((topic, TOPICS_KEY, self._topics))
        return changes
