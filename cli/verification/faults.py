"""The faults that are done to the pipeline while it works: every kind once, then at random.

Each fault leaves the pipeline whole again: a process that it killed runs, one that it froze is
awake.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from cli.verification.pipeline import SESSION_TIMEOUT_S, Pipeline, Process

Say = Callable[[str], None]

BEYOND_SESSION_S: Final = SESSION_TIMEOUT_S + 2.0


class Faults:
    """Counts what it did in `counts`: kills, zombies, broker_restarts, disks_lost, …"""

    def __init__(self, pipeline: Pipeline, seed: int, say: Say, down_s: float) -> None:
        self.counts: Counter[str] = Counter()
        self._pipeline = pipeline
        self._random = Random(f"{seed}:faults")  # noqa: S311 - no secrets
        self._say = say
        self._down_s = down_s
        self._kinds: list[Callable[[], Awaitable[None]]] = [
            self.kill_worker,
            self.freeze_worker,
            self.kill_sink,
            self.freeze_sink,
            self.lose_disk,
            self.restart_broker,
            self.kill_worker_and_sink,
            self.guest_comes_and_goes,
            self.worker_stays_away,
            self.restart_clickhouse,
        ]
        self._waiting = list(self._kinds)

    async def one(self) -> None:
        """Each kind once in a random order, after that any."""
        if self._waiting:
            kind = self._waiting.pop(self._random.randrange(len(self._waiting)))
        else:
            kind = self._random.choice(self._kinds)
        await kind()

    async def kill_worker(self) -> None:
        worker = self._some_worker()
        self._note(f"kill -9 {worker.name}", "kills")
        worker.kill()
        worker.start()

    async def worker_stays_away(self) -> None:
        """Longer than its session: others take over, and it comes back to a moved world."""
        worker = self._some_worker()
        self._note(f"kill -9 {worker.name}, away for {BEYOND_SESSION_S:.0f} s", "kills")
        worker.kill()
        await asyncio.sleep(BEYOND_SESSION_S)
        worker.start()

    async def freeze_worker(self) -> None:
        worker = self._some_worker()
        self._note(f"freeze {worker.name} beyond its session", "zombies")
        worker.freeze()
        await asyncio.sleep(BEYOND_SESSION_S)
        worker.wake()

    async def freeze_sink(self) -> None:
        """It wakes with rows that it read under an assignment that it has no more."""
        self._note("freeze the sink beyond its session", "zombies")
        self._pipeline.sink.freeze()
        await asyncio.sleep(BEYOND_SESSION_S)
        self._pipeline.sink.wake()

    async def lose_disk(self) -> None:
        worker = self._some_worker()
        self._note(f"kill -9 {worker.name} and lose its disk", "kills", "disks_lost")
        worker.kill()
        self._pipeline.lose_disk(worker)
        worker.start()

    async def kill_sink(self) -> None:
        self._note("kill -9 sink", "kills")
        self._pipeline.sink.kill()
        self._pipeline.sink.start()

    async def kill_worker_and_sink(self) -> None:
        worker = self._some_worker()
        self._note(f"kill -9 {worker.name} and sink together", "kills", "kills")
        worker.kill()
        self._pipeline.sink.kill()
        worker.start()
        self._pipeline.sink.start()

    async def guest_comes_and_goes(self) -> None:
        """Partitions are revoked from the others with batches in their queues, and return."""
        self._note("another worker joins and leaves", "rebalances")
        self._pipeline.guest.start()
        await asyncio.sleep(self._random.uniform(3, 6))
        if self._random.random() < 0.5:
            await self._pipeline.guest.stop()
        else:
            self._pipeline.guest.kill()

    async def restart_broker(self) -> None:
        self._note("kill -9 Kafka", "broker_restarts")
        await self.kafka_down(0.0)

    async def restart_clickhouse(self) -> None:
        self._note("kill -9 ClickHouse", "clickhouse_restarts")
        await self.clickhouse_down(0.0)

    async def kafka_down(self, seconds: float) -> None:
        await asyncio.to_thread(self._pipeline.kafka.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._pipeline.kafka.start)

    async def clickhouse_down(self, seconds: float) -> None:
        await asyncio.to_thread(self._pipeline.clickhouse.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._pipeline.clickhouse.start)

    async def outages(self) -> None:
        """Both engines down for the time asked for, one after the other."""
        if not self._down_s:
            return
        self._note(f"ClickHouse down for {self._down_s:.0f} s", "clickhouse_restarts")
        await self.clickhouse_down(self._down_s)
        self._note(f"Kafka down for {self._down_s:.0f} s", "broker_restarts")
        await self.kafka_down(self._down_s)

    async def rebalance_in_recovery(self, recovery_s: float) -> None:
        """A worker joins while the others are in the middle of a long recovery."""
        self._note(f"a worker joins in the middle of a {recovery_s:.0f} s recovery", "rebalances")
        worker = self._some_worker()
        worker.kill()
        self._pipeline.lose_disk(worker)
        await asyncio.sleep(BEYOND_SESSION_S + recovery_s / 2)
        worker.start()
        await asyncio.sleep(recovery_s / 2)

    def _some_worker(self) -> Process:
        return self._random.choice(self._pipeline.workers)

    def _note(self, what: str, *counted: str) -> None:
        self.counts.update(counted)
        self._say(what)
