"""A block into ClickHouse, whatever it takes: retried while unavailable, bisected when refused."""

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
import structlog

from schemas import topics
from sinks import metrics
from sinks.blocks import Block, StoredRecord
from sinks.errors import RefusedError, UnavailableError
from sinks.inserts import Inserter
from sinks.rows import REJECTS_TABLE, TARGETS, encode_reject
from streams.outage import Outage

REJECTS_IN_A_BLOCK_MAX: Final = 100
"""More bad rows than that are a fault of tables or release, not of rows: then everything waits for
an operator rather than being put aside."""

log = structlog.get_logger("sink")


class _TooManyRejectsError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Reject:
    record: StoredRecord
    sent: bytes
    error: str


class _Appended(msgspec.Struct):
    appended_at: datetime


_decode_appended = msgspec.json.Decoder(_Appended).decode


class Store:
    """Puts blocks into the tables; one block at a time."""

    def __init__(
        self,
        inserter: Inserter,
        outage: Outage,
        cluster_id: str,
        topic_names: dict[str, str],
    ) -> None:
        """`topic_names`: unprefixed topic to the name on the broker."""
        self._inserter = inserter
        self._outage = outage
        self._cluster_id = cluster_id
        self._topic_names = topic_names

    async def put(self, block: Block) -> None:
        """Return once every row of the block is acknowledged, in its table or in sink_rejects.

        Waits for as long as ClickHouse is unavailable; cancel it to give up.
        """
        for topic, (table, encode_row) in TARGETS.items():
            records = block.records.get(self._topic_names[topic])
            if not records:
                continue
            rows = [encode_row(record, self._cluster_id) for record in records]
            rejects = await self._put_rows(table, records, rows)
            if rejects:
                await self._put_rejects(table, rejects)
            metrics.ROWS.labels(table).inc(len(records) - len(rejects))
            _observe_delays(topic, records)
        metrics.BYTES.inc(block.bytes)

    async def _put_rows(
        self, table: str, records: list[StoredRecord], rows: list[bytes]
    ) -> list[_Reject]:
        while True:
            rejects: list[_Reject] = []
            try:
                await self._put_or_bisect(table, records, rows, rejects)
            except _TooManyRejectsError:
                self._outage.begin(
                    f"{table} refuses more than {REJECTS_IN_A_BLOCK_MAX} rows of a block, the first"
                    f" with: {rejects[0].error}"
                )
                await self._outage.wait()
            else:
                return [reject for reject in rejects if await self._is_still_refused(table, reject)]

    async def _is_still_refused(self, table: str, reject: _Reject) -> bool:
        """Asked once more: the table may have been mended while its rows were being sifted."""
        try:
            await self._insert(table, [reject.sent])
        except RefusedError:
            return True
        return False

    async def _put_or_bisect(
        self, table: str, records: list[StoredRecord], rows: list[bytes], rejects: list[_Reject]
    ) -> None:
        try:
            await self._insert(table, rows)
        except RefusedError as error:
            if len(rows) == 1:
                rejects.append(_Reject(records[0], rows[0], str(error)))
                if len(rejects) > REJECTS_IN_A_BLOCK_MAX:
                    raise _TooManyRejectsError from error
                return
            middle = len(rows) // 2
            await self._put_or_bisect(table, records[:middle], rows[:middle], rejects)
            await self._put_or_bisect(table, records[middle:], rows[middle:], rejects)

    async def _put_rejects(self, table: str, rejects: list[_Reject]) -> None:
        rows = [
            encode_reject(reject.record, self._cluster_id, reject.sent, reject.error)
            for reject in rejects
        ]
        await self._insert(REJECTS_TABLE, rows)
        metrics.REJECTED.labels(table).inc(len(rejects))
        for reject in rejects:
            log.error(
                "row refused and put into sink_rejects",
                table=table,
                topic=reject.record.topic,
                partition=reject.record.partition,
                offset=reject.record.offset,
                error=reject.error,
            )

    async def _insert(self, table: str, rows: list[bytes]) -> None:
        """Sent again until acknowledged. Raises `RefusedError`."""
        while True:
            begun_s = time.perf_counter()
            try:
                await self._inserter.insert(table, rows)
            except UnavailableError as error:
                self._outage.begin(str(error))
                metrics.RETRIES.inc()
                await self._outage.wait()
            else:
                metrics.INSERT_SECONDS.labels(table).observe(time.perf_counter() - begun_s)
                self._outage.end()
                return


def _observe_delays(topic: str, records: list[StoredRecord]) -> None:
    """Of the oldest row: what a reader waits at worst."""
    if topic != topics.USAGE_RATED:
        return
    now_s = time.time()
    oldest = min(records, key=lambda record: record.timestamp)
    metrics.RATED_DELAY.observe(max(0.0, now_s - oldest.timestamp / 1000))
    with suppress(ValueError, RecursionError):
        appended_at = _decode_appended(oldest.value or b"").appended_at
        metrics.EVENT_DELAY.observe(max(0.0, now_s - appended_at.timestamp()))
