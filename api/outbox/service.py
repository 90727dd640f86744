"""The two loops of a publishing process: facts to Kafka, names to ClickHouse.

Woken by each commit of this process; commits of others are seen at the next look.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from api.options import alias_secret
from api.outbox import metrics, names
from api.outbox.compare import Halt
from api.outbox.facts import TRANSIENT, FactPublisher
from api.outbox.lock import PublisherLock, publisher_lock
from api.rules.change import Clock
from api.storage.store import Store
from schemas.settings import Settings
from warehouse.connection import WarehouseError, connect

log = structlog.get_logger()

LOOK_S: Final = 0.5
"""How long a change of another process waits at most before it is seen."""
LOCK_RETRY_S: Final = 0.5
HALT_LOOK_S: Final = 1.0
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MOST_S: Final = 5.0


@dataclass
class Outbox:
    """Publishes while it runs; `wake` may be called from any thread."""

    settings: Settings
    store: Store
    clock: Clock
    first_look: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the topics have been compared with the database, or could not be reached."""
    _halted: str = ""
    """Why publishing has stopped, as it was said."""
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
        lock = publisher_lock(self.store)
        try:
            await self._take(lock)
            await asyncio.gather(
                self._repeat("kafka", lambda: self._publish_facts(lock)),
                self._repeat("clickhouse", self._write_names),
            )
        finally:
            lock.release()

    async def _take(self, lock: PublisherLock) -> None:
        while not await asyncio.to_thread(lock.take):
            # Somebody else compares and publishes; a halt of theirs is in the database.
            self.first_look.set()
            await asyncio.sleep(LOCK_RETRY_S)

    async def _repeat(self, target: str, work: Callable[[], Awaitable[None]]) -> None:
        """Runs `work`, which returns only by an error, again and again, ever more slowly."""
        pause = BACKOFF_FIRST_S
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await work()
            except (*TRANSIENT, WarehouseError, ClickHouseError) as error:
                metrics.FAILURES.labels(target).inc()
                log.warning("outbox waits", target=target, error=repr(error)[:300])
            if target == "kafka":
                self.first_look.set()
            if asyncio.get_running_loop().time() - started > BACKOFF_MOST_S:
                pause = BACKOFF_FIRST_S
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF_MOST_S)

    async def _publish_facts(self, lock: PublisherLock) -> None:
        publisher = FactPublisher(self.settings, self.store, self.clock)
        try:
            await self._take(lock)
            await publisher.open()
            if self._halted:
                log.info("publishing goes on")
                self._halted = ""
            self.first_look.set()
            while True:
                if not await publisher.publish_round():
                    await self._pause(0)
        except Halt as halt:
            if halt.topic:
                await asyncio.to_thread(publisher.halt, halt)
                self._say(halt)
            self.first_look.set()
            # While nothing is published, `metering facts import` may have the lock.
            await asyncio.to_thread(lock.release)
            await asyncio.sleep(HALT_LOOK_S)
        finally:
            await publisher.close()

    def _say(self, halt: Halt) -> None:
        """Once, not at every look."""
        if halt.message != self._halted:
            log.error("publishing halted", topic=halt.topic, code=halt.code, what=halt.message)
            self._halted = halt.message

    async def _write_names(self) -> None:
        client: Any = await asyncio.to_thread(connect, self.settings)
        secret = alias_secret(self.settings)
        try:
            while True:
                if not await asyncio.to_thread(names.write_round, self.store, client, secret):
                    await self._pause(1)
        finally:
            await asyncio.to_thread(client.close)

    async def _pause(self, which: int) -> None:
        signal = self._signals[which]
        try:
            await asyncio.wait_for(signal.wait(), LOOK_S)
        except TimeoutError:
            return
        signal.clear()
