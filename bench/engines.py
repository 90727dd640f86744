"""The engines as processes: started, told what to do, watched, stopped."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from bench.floor import Order
from bench.loading import ends
from bench.sampling import EngineEndedError
from deploy.embedded.child import ChildProcess, clean_environment
from schemas import topics
from schemas.settings import Settings
from streams.kafka import client_options

ROOT: Final = Path(__file__).resolve().parents[1]
READY_TIMEOUT_S: Final = 300.0
"""Recovery of 10 million ids takes half a minute at the most."""
STOP_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.2
PING_TIMEOUT_S: Final = 2.0


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    """The process's environment, with these settings and no others."""
    return clean_environment(
        {f"METERING_{name.upper()}": str(value) for name, value in values.items()}
    )


class Progress:
    """How many usage records a consumer group has committed; the same question to each engine."""

    def __init__(self, settings: Settings, group: str, topic: str) -> None:
        self._settings = settings
        self._group = group
        self._topic = topic
        self._admin: AIOKafkaAdminClient | None = None

    async def __aenter__(self) -> "Progress":
        self._admin = AIOKafkaAdminClient(**client_options(self._settings))
        await self._admin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._admin is not None
        await self._admin.close()

    async def offsets(self, topic: str) -> list[int]:
        """The committed position of each partition, 0 where there is none."""
        assert self._admin is not None
        try:
            by_topic_partition = await self._admin.list_consumer_group_offsets(self._group)
        except KafkaError:
            return [0] * self._settings.partitions
        by_partition = {
            tp.partition: at.offset for tp, at in by_topic_partition.items() if tp.topic == topic
        }
        return [max(0, by_partition.get(n, 0)) for n in range(self._settings.partitions)]

    async def processed(self) -> int:
        return sum(await self.offsets(self._topic))


class PipelineProcess:
    """`python -m cli worker` or `sink`, as in production."""

    def __init__(self, command: str, values: Mapping[str, Any], port: int, log: Path) -> None:
        self._command = command
        self._values = values
        self._port = port
        self._child = ChildProcess(command, log, die_with_parent=True)

    @property
    def pid(self) -> int:
        if self._child.pid is None:
            raise self._child.failure(f"ended with exit code {self._child.exit_code}")
        return self._child.pid

    async def start(self) -> None:
        """Returns when the process is there, not yet ready."""
        command = [sys.executable, "-m", "cli", self._command]
        await asyncio.to_thread(self._child.start, command, environment(self._values))

    async def ready(self) -> None:
        """Waits until it says that it is ready: recovery is done."""
        await asyncio.to_thread(self._child.wait_until, self._is_ready, READY_TIMEOUT_S)

    def _is_ready(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PING_TIMEOUT_S)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    async def stop(self) -> None:
        await asyncio.to_thread(self._child.stop, STOP_TIMEOUT_S)

    def kill(self) -> None:
        self._child.kill()


async def apply_facts(worker: PipelineProcess, settings: Settings) -> None:
    """Starts a worker on fresh topics, waits until it has recovered the seen ids and applied all
    facts, and stops it: what follows starts from its disk."""
    await worker.start()
    try:
        await worker.ready()
        async with Progress(settings, settings.app_id, "") as progress:
            for topic in topics.FACTS:
                name = settings.topic(topic)
                log_ends = await ends(settings, name)
                deadline_s = time.monotonic() + READY_TIMEOUT_S
                while await progress.offsets(name) != log_ends:
                    if time.monotonic() > deadline_s:
                        raise EngineEndedError(f"facts of {name} are not applied")
                    assert worker.pid
                    await asyncio.sleep(POLL_S)
        await worker.stop()
    finally:
        worker.kill()


class FloorProcess:
    """`python -m bench.floor`: loaded once, then told how far to go. Ends with its stdin."""

    def __init__(
        self, values: Mapping[str, Any], output: str, group: str, seen_ends: list[int], log: Path
    ) -> None:
        self._order = Order(dict(values), output, group, seen_ends)
        self._log = log
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns when everything is loaded."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.floor",
                stdin=PIPE, stdout=PIPE, stderr=log, env=environment({}), cwd=ROOT,
            )  # fmt: skip
        self._write(msgspec.json.encode(self._order))
        await self._expect("ready")

    def go(self, total: int) -> None:
        self._write(str(total).encode())

    async def wait_until_done(self) -> None:
        await self._expect("done")

    async def stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")

    async def _expect(self, word: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_TIMEOUT_S):
            line = await self._process.stdout.readline()
        if line.decode().strip() != word:
            tail = self._log.read_text(errors="replace")[-2_000:]
            raise EngineEndedError(f"the floor said {line!r} instead of {word}\n{tail}")
