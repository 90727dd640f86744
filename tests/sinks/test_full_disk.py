"""A ClickHouse whose disk is full: the sink waits, and every row is there once when it has room."""

import asyncio
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from deploy.embedded.ports import free_port
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.conftest import MakeSettings, clickhouse_settings
from tests.sinks.feed import eventually, running_sink, send, usage_records
from tests.small_disk import SmallDisk, small_disk
from warehouse.connection import connect
from warehouse.migrations import migrate

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 128) as mounted:
        yield mounted


@pytest.fixture
def engine(disk: SmallDisk) -> Iterator[EmbeddedClickHouse]:
    started = EmbeddedClickHouse(disk.path)
    started.start()
    yield started
    started.stop()


@pytest.fixture
async def settings(
    kafka: EmbeddedKafka, engine: EmbeddedClickHouse, make_settings: MakeSettings
) -> Settings:
    own_settings = make_settings(
        sink_batch_max_rows=500,
        sink_batch_max_wait_s=0.2,
        sink_metrics_port=free_port(),
        **clickhouse_settings(engine),
    )
    await create_topics(own_settings)
    migrate(own_settings)
    return own_settings


def rows(settings: Settings, table: str = "spend") -> Any:
    """How many, and of how many events."""
    client = connect(settings)
    try:
        ids = "uniqExact(event_id)" if table == "spend" else "0"
        return client.query(f"SELECT count(), {ids} FROM {table}").result_rows[0]
    finally:
        client.close()


def ready_status(settings: Settings) -> int:
    connection = HTTPConnection("127.0.0.1", settings.sink_metrics_port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("restart", [False, True])
async def test_rows_wait_for_room_and_come_once(
    settings: Settings, disk: SmallDisk, engine: EmbeddedClickHouse, restart: bool
) -> None:
    async with running_sink(settings):
        await send(settings, usage_records(range(2_000)))
        await eventually(lambda: rows(settings), (2_000, 2_000))
        disk.fill()
        await send(settings, usage_records(range(2_000, 6_000)))
        await eventually(lambda: ready_status(settings), 503, within_s=60)
        if restart:
            await asyncio.to_thread(engine.kill)
        disk.make_room()
        if restart:
            await asyncio.to_thread(engine.start)
        await eventually(lambda: rows(settings), (6_000, 6_000), within_s=60)
        assert rows(settings, "sink_rejects") == (0, 0)
