"""Reading a consumer's fetches by whole record batches, still packed; and seeming to poll."""

import asyncio
from collections.abc import Iterator, Set
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult

from streams.wire.record_batch import ReadableBatch


def hand_out_whole_batches(
    consumer: AIOKafkaConsumer, arrived: asyncio.Event, busy_wait_ms: int, idle_wait_ms: int
) -> None:
    """To be called when it has started; from then on it is read by `fetch_batches` alone.

    Sets `arrived` when an answer comes, and lets the broker hold back the next one for
    `idle_wait_ms` only while none waits to be read, else for `busy_wait_ms`.
    """
    consumer._fetcher._records = _Results(consumer._fetcher, arrived, busy_wait_ms, idle_wait_ms)


async def fetch_batches(
    consumer: AIOKafkaConsumer, partitions: Set[TopicPartition], max_records: int
) -> dict[TopicPartition, list[ReadableBatch]]:
    """What has come of these partitions: about `max_records`, by whole record batches. Raises
    KafkaError."""
    drained: dict[TopicPartition, list[ReadableBatch]] = {}
    count = 0
    while count < max_records:
        more = await consumer._fetcher.fetched_records(partitions, max_records=1)
        if not more:
            break
        for tp, batches in more.items():
            drained.setdefault(tp, []).extend(batches)
            count += sum(batch.next_offset - batch.base_offset for batch in batches)
    return drained


def note_poll(consumer: AIOKafkaConsumer) -> None:
    """Tells the group that its member polls: one that is silent for too long leaves."""
    with consumer._subscription.fetch_context():
        return


class _Results(dict[TopicPartition, Any]):
    """aiokafka's answers that wait to be read, made to be read by whole record batches."""

    def __init__(
        self, fetcher: Any, arrived: asyncio.Event, busy_wait_ms: int, idle_wait_ms: int
    ) -> None:
        super().__init__()
        self._fetcher = fetcher
        self._arrived = arrived
        self._busy_wait_ms = busy_wait_ms
        self._idle_wait_ms = idle_wait_ms
        fetcher._fetch_max_wait_ms = busy_wait_ms

    def __setitem__(self, tp: TopicPartition, result: Any) -> None:
        if isinstance(result, FetchResult):
            unpacking = result._partition_records
            unpacking._records = _WholeBatches(unpacking._records)
            unpacking._consumer_record = _whole
        super().__setitem__(tp, result)
        self._fetcher._fetch_max_wait_ms = self._busy_wait_ms
        self._arrived.set()

    def __delitem__(self, tp: TopicPartition) -> None:
        super().__delitem__(tp)
        if not self:
            self._fetcher._fetch_max_wait_ms = self._idle_wait_ms

    def clear(self) -> None:
        """At a new assignment, on which others follow soon: each ends the request before it, for
        whose answer the broker lets the next one wait."""
        super().clear()
        self._fetcher._fetch_max_wait_ms = self._busy_wait_ms


class _Whole:
    """A record batch in the place of its own records: aiokafka's loop over them, which knows about
    checksums, markers and aborted transactions, hands on the batch instead."""

    def __init__(self, batch: ReadableBatch) -> None:
        self.batch = batch
        self.offset = batch.next_offset - 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batch, name)

    def __iter__(self) -> Iterator["_Whole"]:
        yield self

    def __next__(self) -> Any:
        return next(self.batch)


class _WholeBatches:
    """Stands for aiokafka's `MemoryRecords`."""

    def __init__(self, records: Any) -> None:
        self.has_next = records.has_next
        self._next_batch = records.next_batch

    def next_batch(self) -> _Whole:
        return _Whole(self._next_batch())


def _whole(_tp: TopicPartition, record: _Whole) -> ReadableBatch:
    return record.batch
