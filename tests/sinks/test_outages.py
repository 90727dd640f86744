"""The sink, ClickHouse and Kafka may die at any moment: afterwards every row is there once."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from deploy.embedded.ports import free_port
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.conftest import MakeSettings, clickhouse_settings
from tests.sinks.feed import (
    eventually,
    http_get,
    producer,
    running_sink,
    send,
    send_with,
    sink_process,
    usage_records,
)
from warehouse.connection import connect
from warehouse.migrations import migrate

SEED = 20261121


@pytest.fixture
def own_clickhouse(tmp_path: Path) -> Iterator[EmbeddedClickHouse]:
    engine = EmbeddedClickHouse(tmp_path)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    broker = EmbeddedKafka(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
async def settings(
    kafka: EmbeddedKafka, own_clickhouse: EmbeddedClickHouse, make_settings: MakeSettings
) -> Settings:
    own_settings = make_settings(
        sink_batch_max_rows=1_000,
        sink_batch_max_wait_s=0.2,
        sink_metrics_port=free_port(),
        session_timeout_s=6.0,
        **clickhouse_settings(own_clickhouse),
    )
    await create_topics(own_settings)
    migrate(own_settings)
    return own_settings


def totals(settings: Settings) -> Any:
    """Asked anew each time: the engine may have been killed since. As finance would sum."""
    client = connect(settings)
    try:
        return client.query(
            "SELECT count(), sum(cost_micro), uniqExact(event_id) FROM spend"
        ).result_rows[0]
    finally:
        client.close()


def expected(count: int) -> tuple[int, int, int]:
    return count, count * (count - 1) // 2, count


async def feed(settings: Settings, count: int, a_second: int) -> None:
    async with producer(settings) as sender:
        for begin in range(0, count, a_second // 10):
            end = min(count, begin + a_second // 10)
            await send_with(sender, settings, usage_records(range(begin, end)))
            await asyncio.sleep(0.1)


async def test_kill_9_of_sink_and_clickhouse_in_mid_stream(
    settings: Settings, own_clickhouse: EmbeddedClickHouse
) -> None:
    count, rng = 40_000, random.Random(SEED)
    with sink_process(settings) as sink:
        feeding = asyncio.create_task(feed(settings, count, 4_000))
        for turn in range(5):
            await asyncio.sleep(rng.uniform(1.0, 2.0))
            if turn % 2:
                await asyncio.to_thread(own_clickhouse.kill)
                await asyncio.sleep(rng.uniform(0.0, 0.5))
                await asyncio.to_thread(own_clickhouse.start)
            else:
                sink.kill()
                sink.start()
        await feeding
        await eventually(lambda: totals(settings), expected(count), within_s=60)
        assert sink.terminate() == 0


async def test_clickhouse_down_for_a_while(
    settings: Settings, own_clickhouse: EmbeddedClickHouse, capsys: pytest.CaptureFixture[str]
) -> None:
    port = settings.sink_metrics_port
    async with running_sink(settings):
        await send(settings, usage_records(range(100)))
        await eventually(lambda: totals(settings), expected(100))
        await asyncio.to_thread(own_clickhouse.stop)
        await send(settings, usage_records(range(100, 5_000)))
        await asyncio.sleep(3)
        status, text = await http_get(port, "/health/ready")
        assert (status, "clickhouse" in text) == (503, True)
        assert (await http_get(port, "/health/live"))[0] == 200
        await asyncio.to_thread(own_clickhouse.start)
        await eventually(lambda: totals(settings), expected(5_000))
        assert (await http_get(port, "/health/ready"))[0] == 200
    said = capsys.readouterr().out
    assert said.count("waiting ") == 1
    assert said.count("answers again") == 1


async def test_an_idle_sink_is_not_ready_while_clickhouse_is_away(
    settings: Settings, own_clickhouse: EmbeddedClickHouse
) -> None:
    async def ready() -> tuple[int, bool]:
        status, text = await http_get(settings.sink_metrics_port, "/health/ready")
        return status, "clickhouse" in text

    async with running_sink(settings):
        await eventually_ready(ready, (200, False))
        await asyncio.to_thread(own_clickhouse.kill)
        await eventually_ready(ready, (503, True))
        assert (await http_get(settings.sink_metrics_port, "/health/live"))[0] == 200
        await asyncio.to_thread(own_clickhouse.start)
        await eventually_ready(ready, (200, False))


async def eventually_ready(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    async with asyncio.timeout(30):
        while await ask() != expected:  # noqa: ASYNC110 - a port has no event
            await asyncio.sleep(0.1)


async def test_a_stop_while_clickhouse_is_down_is_quick_and_loses_nothing(
    settings: Settings, own_clickhouse: EmbeddedClickHouse
) -> None:
    await send(settings, usage_records(range(2_500)))
    await asyncio.to_thread(own_clickhouse.stop)
    async with running_sink(settings):
        await asyncio.sleep(2)
    await asyncio.to_thread(own_clickhouse.start)
    async with running_sink(settings):
        await eventually(lambda: totals(settings), expected(2_500))


async def test_kafka_down_for_a_while(
    own_kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse, make_settings: MakeSettings
) -> None:
    settings = make_settings(
        kafka_bootstrap=own_kafka.bootstrap,
        sink_metrics_port=free_port(),
        sink_batch_max_wait_s=0.2,
        session_timeout_s=6.0,
    )
    await create_topics(settings)
    migrate(settings)
    await asyncio.to_thread(own_kafka.stop)
    async with running_sink(settings):  # it starts before Kafka does
        await asyncio.sleep(1)
        assert (await http_get(settings.sink_metrics_port, "/health/ready"))[0] == 503
        await asyncio.to_thread(own_kafka.start)
        await send(settings, usage_records(range(500)))
        await eventually(lambda: totals(settings), expected(500))
        await asyncio.to_thread(own_kafka.kill)
        await asyncio.sleep(2)
        await asyncio.to_thread(own_kafka.start)
        await send(settings, usage_records(range(500, 1_000)))
        await eventually(lambda: totals(settings), expected(1_000), within_s=60)


async def test_two_sinks_share_and_take_over(settings: Settings) -> None:
    """The second joins in mid-stream and the first is killed: nothing is missing or twice."""
    other = settings.model_copy(update={"instance_id": "two", "sink_metrics_port": free_port()})
    count = 20_000
    with sink_process(settings) as first:
        feeding = asyncio.create_task(feed(settings, count, 4_000))
        await asyncio.sleep(1.5)
        with sink_process(other) as second:
            await asyncio.sleep(2.5)
            first.kill()
            await feeding
            await eventually(lambda: totals(settings), expected(count), within_s=60)
            assert second.exit_code is None
