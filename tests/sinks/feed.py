"""Records as the worker writes them, put into Kafka, and a sink to run over them."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from schemas import codec
from schemas.records import Allocation, FactApplied, Posting, RatedEvent
from schemas.settings import Settings
from sinks.process import serve

PROJECT_ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)

Sent = tuple[str, int, bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Topic (unprefixed), partition, key, value, headers."""


def rated_event(number: int, **changes: Any) -> RatedEvent:
    """Event `number`: costs `number` micro-credits, all of it overage unless changed."""
    fields: dict[str, Any] = {
        "organization_id": "org_1",
        "source": "editor",
        "event_id": f"evt_{number}",
        "revision": 0,
        "event_time": NOON + timedelta(seconds=number),
        "meter": "ai.tokens",
        "subject": "user_1",
        "member_id": "user_1",
        "resolved_by": "member",
        "website_id": "",
        "dimensions": {"model": "large"},
        "stamped_group_id": "group_a",
        "funding_group_id": "",
        "membership_version": 2,
        "settings_version": 1,
        "price_version": 3,
        "price_micro": 1_000_000,
        "quantity_micro": number * 1_000_000,
        "cost_micro": number,
        "website_debit_micro": 0,
        "group_debit_micro": 0,
        "overage_micro": number,
        "credit_price_micro": 10_000,
        "currency": "USD",
        "allocations": [],
        "website_balance_micro": 0,
        "group_balance_micro": 0,
        "input_topic": "usage",
        "input_partition": 0,
        "input_offset": number,
        "appended_at": NOON,
        "recorded_at": NOON,
    }
    return RatedEvent(**{**fields, **changes})


def fact_applied(version: int, fact_type: str, **changes: Any) -> FactApplied:
    fields: dict[str, Any] = {
        "organization_id": "org_1",
        "topic": "memberships",
        "version": version,
        "type": fact_type,
        "effective_at": NOON,
        "recorded_at": NOON,
        "applied_at": NOON,
        "member_id": "",
        "group_id": "",
        "website_id": "",
        "grant_id": "",
        "how": "",
        "fact": "{}",
        "input_partition": 0,
        "input_offset": version,
    }
    return FactApplied(**{**fields, **changes})


def posting(number: int, **changes: Any) -> Posting:
    fields: dict[str, Any] = {
        "organization_id": "org_1",
        "entry_id": f"grant:g{number}",
        "leg": 0,
        "kind": "grant",
        "account": "available",
        "pool_kind": "group",
        "pool_id": "group_a",
        "grant_id": f"g{number}",
        "amount_micro": number,
        "balance_after_micro": number,
        "caused_by_topic": "credits",
        "caused_by_version": number,
        "effective_at": NOON,
        "recorded_at": NOON,
    }
    return Posting(**{**fields, **changes})


def usage_records(numbers: Iterable[int], *, partitions: int = 4, **changes: Any) -> list[Sent]:
    return [
        (
            "usage-rated",
            number % partitions,
            b"org_1",
            codec.encode(rated_event(number, **changes)),
            [],
        )
        for number in numbers
    ]


@asynccontextmanager
async def producer(settings: Settings, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    sender = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, acks="all", linger_ms=2, **options
    )
    await sender.start()
    try:
        yield sender
    finally:
        await sender.stop()


async def send(settings: Settings, records: Iterable[Sent]) -> None:
    async with producer(settings) as sender:
        await send_with(sender, settings, records)


async def send_with(sender: AIOKafkaProducer, settings: Settings, records: Iterable[Sent]) -> None:
    sent = [
        await sender.send(
            settings.topic(topic), value, key=key, partition=partition, headers=headers
        )
        for topic, partition, key, value, headers in records
    ]
    await asyncio.gather(*sent)


async def delete_before(settings: Settings, topic: str, partition: int, offset: int) -> None:
    """As retention would, at once."""
    from aiokafka import TopicPartition
    from aiokafka.admin import RecordsToDelete

    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.delete_records(
            {TopicPartition(settings.topic(topic), partition): RecordsToDelete(offset)}
        )
    finally:
        await admin.close()


@asynccontextmanager
async def running_sink(settings: Settings, *, from_earliest: bool = False) -> AsyncIterator[None]:
    """The sink on this event loop, stopped at the end; its failure is the test's."""
    stopping = asyncio.Event()
    task = asyncio.create_task(serve(settings, stopping, from_earliest=from_earliest))
    try:
        for _ in range(500):
            if task.done() or await _listens(settings.sink_metrics_port):
                break
            await asyncio.sleep(0.02)
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(task, 30)


async def _listens(port: int) -> bool:
    try:
        await http_get(port, "/health/live")
    except aiohttp.ClientError:
        return False
    return True


class SinkProcess:
    """`metering sink` as the operating system sees it."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {**os.environ, **_as_environment(settings)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = "from schemas.settings import Settings; from sinks import run; run(Settings())"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=PROJECT_ROOT, env=self._environment
        )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """The exit code after SIGTERM."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(30)

    @property
    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()


@contextmanager
def sink_process(settings: Settings) -> Iterator[SinkProcess]:
    sink = SinkProcess(settings)
    sink.start()
    try:
        yield sink
    finally:
        if sink.exit_code is None:
            sink.kill()


async def eventually(
    ask: Callable[[], Any], expected: Any, *, within_s: float = 30.0, every_s: float = 0.1
) -> None:
    """Ask in a thread until the answer is as wanted; an error counts as another answer."""
    deadline = time.monotonic() + within_s
    answer: Any = None
    while time.monotonic() < deadline:
        try:
            answer = await asyncio.to_thread(ask)
        except Exception as error:  # noqa: BLE001 - shown when time is up
            answer = error
        if answer == expected:
            return
        await asyncio.sleep(every_s)
    raise AssertionError(f"after {within_s} s: {answer!r}, not {expected!r}")


async def http_get(port: int, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


def allocation(pool: Any, grant_id: str, amount_micro: int) -> Allocation:
    return Allocation(pool, grant_id, amount_micro)


def _as_environment(settings: Settings) -> dict[str, str]:
    variables = {}
    for name, value in settings:
        if value is None:
            continue
        raw = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        variables[f"METERING_{name.upper()}"] = str(raw)
    return variables
