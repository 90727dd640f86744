"""Runs `counting_app` workers on the real broker, feeds them, and checks what they committed."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

PARTITIONS = 4
KEYS = 40
COMPACTED = ("counting-state", "counting-totals")
TOPICS = ("factors", "numbers", "totals", *COMPACTED, "counting-seen")


class Counting:
    """One set of topics and its workers. `async with`, so that everything it started ends."""

    def __init__(self, bootstrap: str, prefix: str, directory: Path, seed: int) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.directory = directory
        self.rng = random.Random(seed)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.sent: dict[str, tuple[str, int]] = {}
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> "Counting":
        await self._create(TOPICS)
        self._producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all")
        await self._producer.start()
        for key in range(KEYS):
            await self.set_factor(f"k{key}", key + 1)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.wait()
        assert self._producer is not None
        await self._producer.stop()

    async def _create(self, names: Iterable[str]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        created = await admin.create_topics(
            [
                NewTopic(
                    self.prefix + name,
                    PARTITIONS,
                    1,
                    topic_configs={
                        "cleanup.policy": "compact" if name in COMPACTED else "delete",
                        "message.timestamp.type": "LogAppendTime",
                    },
                )
                for name in names
            ]
        )
        await admin.close()
        for _, code, *_ in created.topic_errors:
            if code:
                raise for_code(code)

    async def create_again(self, name: str) -> None:
        """The topic, empty."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        await admin.delete_topics([self.prefix + name])
        await admin.close()
        async with asyncio.timeout(30):
            await self._create_when_gone(name)

    async def _create_when_gone(self, name: str) -> None:
        try:
            await self._create([name])
        except TopicAlreadyExistsError:
            await asyncio.sleep(0.1)
            await self._create_when_gone(name)

    def start(self, name: str, **environment: str) -> None:
        """Starts a worker process under a stable instance id and on a disk of its own."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self.workers[name] = self._spawn(name, log, environment)

    def _spawn(
        self, name: str, log: BinaryIO, environment: dict[str, str]
    ) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.exactly_once.counting_app"],
            env={
                **os.environ,
                "COUNTING_BOOTSTRAP": self.bootstrap,
                "COUNTING_PREFIX": self.prefix,
                "COUNTING_DIRECTORY": str(self.directory / name),
                "COUNTING_INSTANCE": name,
                **environment,
            },
            stdout=log,
            stderr=log,
        )

    async def ended(self, name: str) -> int:
        """The exit code of a worker that ends of itself."""
        return await asyncio.to_thread(self.workers[name].wait, 60)

    def stop(self, name: str) -> None:
        """Cleanly."""
        self.workers[name].terminate()
        self.workers[name].wait(60)

    def directory_of(self, name: str) -> Path:
        return self.directory / name

    def kill(self, name: str) -> None:
        self.workers[name].kill()
        self.workers[name].wait()

    def lose_disk(self, name: str) -> None:
        shutil.rmtree(self.directory / name, ignore_errors=True)

    def log_of(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def recoveries(self, name: str) -> list[tuple[int, int, float]]:
        """(partition, records read, seconds) of every recovery the worker reported."""
        return [
            (int(words[1]), int(words[2]), float(words[3]))
            for words in (line.split() for line in self.log_of(name).splitlines())
            if words and words[0].endswith("recovered") and len(words) == 4
        ]

    @asynccontextmanager
    async def open_transaction(self, topic: str) -> AsyncIterator[None]:
        """Somebody's transaction that has written to every partition; aborted at the end."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, transactional_id=f"{self.prefix}somebody"
        )
        await producer.start()
        try:
            await producer.begin_transaction()
            for partition in range(PARTITIONS):
                await producer.send_and_wait(self.prefix + topic, b"{}", partition=partition)
            yield
            await producer.abort_transaction()
        finally:
            await producer.stop()

    async def set_factor(self, key: str, factor: int) -> None:
        await self.send("factors", key, {"key": key, "factor": factor})

    async def send_numbers(self, count: int, duplicates: float = 0.05) -> None:
        """Sends numbered numbers, some of them twice, without waiting for each."""
        for _ in range(count):
            identity, key = f"i{len(self.sent)}", f"k{self.rng.randrange(KEYS)}"
            self.sent[identity] = (key, self.rng.randrange(1, 9))
            row = {"id": identity, "key": key, "n": self.sent[identity][1]}
            for _ in range(2 if self.rng.random() < duplicates else 1):
                await self.send("numbers", key, row, wait=False)
        assert self._producer is not None
        await self._producer.flush()

    async def send_again(self, count: int) -> None:
        """The first so many numbers, as they were sent."""
        for identity, (key, n) in list(self.sent.items())[:count]:
            await self.send("numbers", key, {"id": identity, "key": key, "n": n}, wait=False)
        assert self._producer is not None
        await self._producer.flush()

    async def send(self, topic: str, key: str, row: dict[str, Any], wait: bool = True) -> None:
        assert self._producer is not None
        future = await self._producer.send(
            self.prefix + topic, msgspec.json.encode(row), key=key.encode()
        )
        if wait:
            await future

    async def totals(self, within_s: float) -> list[dict[str, Any]]:
        """All committed totals, once there is one for each number sent or the time is over."""
        rows: list[dict[str, Any]] = []
        async for record in self._committed(within_s, lambda: len(rows) < len(self.sent)):
            rows.append(msgspec.json.decode(record.value))
        return rows

    async def ids_by_partition(self, within_s: float) -> dict[int, list[str]]:
        """The ids of all totals that are committed within this time, the clock's among them."""
        ids: dict[int, list[str]] = defaultdict(list)
        async for record in self._committed(within_s, lambda: True):
            ids[record.partition].append(msgspec.json.decode(record.value)["id"])
        return ids

    async def _committed(self, within_s: float, go_on: Callable[[], bool]) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
        )
        await consumer.start()
        tps = [TopicPartition(self.prefix + "totals", number) for number in range(PARTITIONS)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        deadline = time.monotonic() + within_s
        while go_on() and time.monotonic() < deadline:
            for batch in (await consumer.getmany(timeout_ms=200, max_records=20_000)).values():
                for record in batch:
                    yield record
            self.restart_ended()
        # What is committed twice would come a little later.
        await asyncio.sleep(0.5)
        for batch in (await consumer.getmany(timeout_ms=500, max_records=20_000)).values():
            for record in batch:
                yield record
        await consumer.stop()

    def restart_ended(self) -> None:
        """What a supervisor does."""
        for name, worker in list(self.workers.items()):
            if worker.poll() is not None:
                self.start(name)

    async def assert_exact(self, within_s: float = 60) -> None:
        """Every number counted once, in order, with the right running total."""
        rows = await self.totals(within_s)
        counted = Counter(row["id"] for row in rows)
        assert set(self.sent) - set(counted) == set(), "lost"
        assert [identity for identity, times in counted.items() if times > 1] == [], "counted twice"
        running: dict[str, int] = defaultdict(int)
        for row in rows:
            key, n = self.sent[row["id"]]
            running[key] += n * (int(key[1:]) + 1)
            assert row["total"] == running[key]
