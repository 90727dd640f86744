"""The two loops of a publishing process: facts to Kafka, names to ClickHouse.

Woken by each commit of this process; commits of others are seen at the next look.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from api.clock import Clock
from api.outbox import metrics, names
from api.outbox.compare import Halt
from api.outbox.facts import TRANSIENT, FactPublisher
from api.storage.ledgers import UNKNOWN_ORGANIZATION
from api.storage.lock import PUBLISHING, WorkLock, work_lock
from api.storage.store import Store
from schemas.settings import Settings
from streams.outage import Outage
from warehouse.connection import WarehouseError, connect

log = structlog.get_logger()

LOOK_S: Final = 0.5
"""How long a fact of another process waits at most before it is seen."""
NAMES_LOOK_S: Final = 2.0
"""The same for a name."""
ROUND_S: Final = 60.0
"""A round that takes longer is given up, with its clients: what they had sent is found in the topic
by the next comparison."""
CLOSE_S: Final = 10.0
LOCK_RETRY_S: Final = 0.5
COMPARE_S: Final = 30.0
"""How long a stray fact is unseen at most while nothing is to be published."""
OFFER_EVERY_S: Final = 1.0
OFFER_S: Final = 0.2
SAID_AT_ONCE_MAX: Final = 20


@dataclass
class Outbox:
    """Publishes while it runs; `wake` may be called from any thread."""

    settings: Settings
    store: Store
    clock: Clock
    first_look: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the topics have been compared with the database, or could not be reached."""
    _halted: set[tuple[str, str]] = field(default_factory=set)
    """Organizations and topics whose halt was said."""
    _loop: asyncio.AbstractEventLoop | None = None
    _signals: tuple[asyncio.Event, ...] = ()
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._signals = (asyncio.Event(), asyncio.Event())
        self._tasks = [asyncio.create_task(self._run())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """Something was committed."""
        if self._loop is not None and not self._loop.is_closed():
            for signal in self._signals:
                self._loop.call_soon_threadsafe(signal.set)

    async def _run(self) -> None:
        lock = work_lock(self.store, PUBLISHING)
        try:
            await self._take(lock)
            await asyncio.gather(
                self._repeat(Outage("kafka"), partial(self._publish_facts, lock)),
                self._repeat(Outage("clickhouse"), self._write_names),
            )
        finally:
            lock.release()

    async def _take(self, lock: WorkLock) -> None:
        while not await asyncio.to_thread(lock.take):
            # Somebody else compares and publishes; a halt of theirs is in the database.
            self.first_look.set()
            await asyncio.sleep(LOCK_RETRY_S)

    async def _repeat(self, outage: Outage, work: Callable[[Outage], Awaitable[None]]) -> None:
        """Runs `work`, which returns only by an error, again and again, ever more slowly."""
        while True:
            try:
                await work(outage)
            except (*TRANSIENT, WarehouseError, ClickHouseError) as error:
                metrics.FAILURES.labels(outage.dependency).inc()
                outage.begin(repr(error)[:300])
            await outage.wait()

    async def _publish_facts(self, lock: WorkLock, outage: Outage) -> None:
        publisher = FactPublisher(self.settings, self.store, self.clock)
        loop = asyncio.get_running_loop()
        try:
            await self._take(lock)
            await publisher.open()
            self._say(publisher.halts)
            self.first_look.set()
            outage.end()
            compared_s = offered_s = loop.time()
            while True:
                async with asyncio.timeout(ROUND_S):
                    published = await publisher.publish_round()
                if published:
                    compared_s = loop.time()
                else:
                    await self._pause(0, LOOK_S)
                if loop.time() - compared_s > COMPARE_S:
                    await publisher.compare()
                    compared_s = loop.time()
                if publisher.halts and loop.time() - offered_s > OFFER_EVERY_S:
                    await self._offer(lock, publisher)
                    offered_s = loop.time()
                self._say(publisher.halts)
        finally:
            self.first_look.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await publisher.close()

    async def _offer(self, lock: WorkLock, publisher: FactPublisher) -> None:
        """While somebody is halted, `metering facts import` may have the lock for a moment."""
        await asyncio.to_thread(lock.release)
        await asyncio.sleep(OFFER_S)
        await self._take(lock)
        await asyncio.to_thread(publisher.reload)

    def _say(self, halts: Sequence[Halt]) -> None:
        """Each once, not at every look."""
        now = {(halt.organization_id, halt.topic): halt for halt in halts}
        fresh = [halt for key, halt in now.items() if key not in self._halted]
        for halt in fresh[:SAID_AT_ONCE_MAX]:
            event = (
                "unknown organization in a topic"
                if halt.code == UNKNOWN_ORGANIZATION
                else "publishing halted"
            )
            log.error(
                event,
                organization_id=halt.organization_id,
                topic=halt.topic,
                code=halt.code,
                what=halt.message,
            )
        if len(fresh) > SAID_AT_ONCE_MAX:
            log.error("publishing halted of more", organizations=len(fresh) - SAID_AT_ONCE_MAX)
        over = self._halted - now.keys()
        if over:
            log.info("publishing goes on", organizations=len(over))
        self._halted = set(now)

    async def _write_names(self, outage: Outage) -> None:
        client: Any = await asyncio.to_thread(connect, self.settings)
        secret = self.settings.alias_secret.get_secret_value().encode()
        try:
            while True:
                written = await asyncio.to_thread(names.write_round, self.store, client, secret)
                outage.end()
                if not written:
                    await self._pause(1, NAMES_LOOK_S)
        finally:
            await asyncio.to_thread(client.close)

    async def _pause(self, which: int, look_s: float) -> None:
        signal = self._signals[which]
        try:
            # Not by `wait_for`: before Python 3.12 it may lose a cancellation.
            async with asyncio.timeout(look_s):
                await signal.wait()
        except TimeoutError:
            return
        signal.clear()
