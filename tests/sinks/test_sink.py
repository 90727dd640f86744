"""Records of all four topics become rows, counted once, and nothing is skipped in silence."""

import asyncio
from base64 import b64decode
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas import codec, headers
from schemas.records import Allocation
from schemas.settings import Settings
from sinks.errors import PositionLostError
from sinks.process import serve
from tests.sinks.feed import (
    delete_before,
    eventually,
    fact_applied,
    http_get,
    posting,
    producer,
    rated_event,
    running_sink,
    send,
    send_with,
    usage_records,
)


def count_and_sum(client: Any, view: str = "usage_rated") -> Any:
    return client.query(f"SELECT count(), sum(cost_micro) FROM {view}").result_rows[0]


def expected(numbers: range) -> tuple[int, int]:
    return len(numbers), sum(numbers)


async def test_all_four_topics_become_rows_unchanged(settings: Settings, client: Any) -> None:
    event = rated_event(
        5, group_debit_micro=3, overage_micro=2, allocations=[Allocation("group", "g", 3)]
    )
    await send(
        settings,
        [
            ("usage-rated", 0, b"org_1", codec.encode(event), []),
            ("ledger", 1, b"org_1", codec.encode(posting(7)), []),
            ("facts-applied", 2, b"org_1", codec.encode(fact_applied(2, "group_created")), []),
            ("dead-letters", 3, b"org_1", b"\xff\x00", [(headers.REASON, b"not_json")]),
        ],
    )
    async with running_sink(settings):
        for view in ("usage_rated", "ledger", "facts_applied", "dead_letters"):
            await eventually(
                lambda view=view: client.query(f"SELECT count() FROM {view}").result_rows, [(1,)]
            )
        row = next(client.query("SELECT * FROM usage_rated").named_results())
        assert {name: row[name] for name in row if name != "allocations"} == {
            name: getattr(event, name) for name in event.__struct_fields__ if name != "allocations"
        }
        allocations = client.query("SELECT allocations.amount_micro FROM usage_rated").result_rows
        assert list(allocations[0][0]) == [3]
        dead = next(client.query("SELECT * FROM dead_letters").named_results())
        assert (dead["reason"], b64decode(dead["value_base64"])) == ("not_json", b"\xff\x00")
        assert dead["cluster_id"]

        port = settings.sink_metrics_port
        assert (await http_get(port, "/health/live"))[0] == 200
        assert await http_get(port, "/health/ready") == (200, "ok\n")
        lag = f'metering_sink_lag_records{{partition="0",topic="{settings.topic("ledger")}"}} 0.0'

        async def metrics() -> str:
            return (await http_get(port, "/metrics"))[1]

        for _ in range(60):
            if lag in await metrics():
                break
            await asyncio.sleep(0.1)
        assert lag in await metrics()
        assert 'metering_sink_rows_total{table="usage_rated_rows"}' in await metrics()


async def test_billing_cycles_follow_the_settings(settings: Settings, client: Any) -> None:
    fact = '{"type":"organization_created","billing_anchor_day":15,"time_zone":"Asia/Tokyo"}'
    encoded_fact = codec.encode(fact_applied(1, "organization_created", fact=fact))
    async with running_sink(settings):
        await send(settings, [("facts-applied", 2, b"org_1", encoded_fact, [])])
        statement = (
            "SELECT toString(ends_at) FROM billing_cycles WHERE organization_id = 'org_1' "
            "AND starts_at <= '2026-11-10' AND ends_at > '2026-11-10'"
        )
        await eventually(
            lambda: client.query(statement).result_rows, [("2026-11-14 15:00:00.000000",)]
        )


async def test_aborted_transactions_are_never_seen(settings: Settings, client: Any) -> None:
    async with producer(settings, transactional_id=f"{settings.app_id}-p") as sender:
        for number in range(6):
            await sender.begin_transaction()
            await send_with(sender, settings, usage_records(range(number * 10, number * 10 + 10)))
            await (sender.abort_transaction() if number % 2 else sender.commit_transaction())
    committed = [n for n in range(60) if n // 10 % 2 == 0]
    async with running_sink(settings):
        await eventually(lambda: count_and_sum(client), (30, sum(committed)))


async def test_a_restart_goes_on_where_rows_were_acknowledged(
    settings: Settings, client: Any
) -> None:
    await send(settings, usage_records(range(100)))
    async with running_sink(settings):
        await eventually(lambda: count_and_sum(client), expected(range(100)))
    await send(settings, usage_records(range(100, 150)))
    async with running_sink(settings):
        await eventually(lambda: count_and_sum(client), expected(range(150)))
    positions = await committed(settings)

    assert sum(positions.values()) == 150


async def committed(settings: Settings) -> dict[int, int]:
    reader = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, group_id=f"{settings.app_id}-sink",
        enable_auto_commit=False,
    )  # fmt: skip
    await reader.start()
    try:
        topic = settings.topic("usage-rated")
        return {
            partition: await reader.committed(TopicPartition(topic, partition)) or 0
            for partition in range(settings.partitions)
        }
    finally:
        await reader.stop()


async def test_a_bad_row_is_put_aside_and_the_rest_goes_in(settings: Settings, client: Any) -> None:
    """Three bad ones in different places, one of them a tombstone."""
    good = usage_records(range(300), partitions=1)
    bad = [b'{"organization_id":"org_1","cost_micro":"many"}', b"\xff\xfe not json", None]
    records = [*good[:40], *good[40:200], *good[200:]]
    for place, value in zip((0, 77, 250), bad, strict=True):
        records.insert(place, ("usage-rated", 0, b"org_1", value, []))
    await send(settings, records)
    async with running_sink(settings):
        await eventually(lambda: count_and_sum(client), expected(range(300)))
        await eventually(
            lambda: client.query("SELECT count() FROM sink_rejects FINAL").result_rows, [(3,)]
        )
    rejects = client.query(
        "SELECT offset, value_base64, error FROM sink_rejects FINAL ORDER BY offset"
    ).result_rows

    assert [row[0] for row in rejects] == [0, 77, 250]
    assert [b64decode(row[1]) for row in rejects] == [bad[0], bad[1], b""]
    assert all(row[2] for row in rejects)


async def test_too_many_bad_rows_are_waited_out_not_put_aside(
    settings: Settings, client: Any
) -> None:
    """A table of another shape: an operator mends it, and everything goes in."""
    client.command("ALTER TABLE ledger_rows MODIFY COLUMN kind Int64")
    await send(
        settings,
        [("ledger", 0, b"org_1", codec.encode(posting(number)), []) for number in range(250)],
    )
    async with running_sink(settings):
        for _ in range(100):
            status, text = await http_get(settings.sink_metrics_port, "/health/ready")
            if status == 503 and "refuses more than" in text:
                break
            await asyncio.sleep(0.2)
        assert "ledger_rows refuses more than 100 rows" in text
        client.command("ALTER TABLE ledger_rows MODIFY COLUMN kind LowCardinality(String)")
        await eventually(lambda: client.query("SELECT count() FROM ledger").result_rows, [(250,)])
    assert client.query("SELECT count() FROM sink_rejects").result_rows == [(0,)]


async def test_a_position_below_the_log_start_ends_the_sink(
    settings: Settings, client: Any
) -> None:
    await send(settings, usage_records(range(40)))
    async with running_sink(settings):
        await eventually(lambda: count_and_sum(client), expected(range(40)))
    await send(settings, usage_records(range(40, 80)))
    await delete_before(settings, "usage-rated", 2, 15)

    with pytest.raises(PositionLostError, match="5 records were deleted before the sink read"):
        await until_it_ends(settings)
    async with running_sink(settings, from_earliest=True):
        lost = [n for n in range(40, 80) if n % 4 == 2][:5]
        await eventually(lambda: count_and_sum(client), (75, sum(range(80)) - sum(lost)))


async def test_a_new_group_does_not_begin_behind_a_hole(settings: Settings) -> None:
    await send(settings, usage_records(range(40)))
    await delete_before(settings, "usage-rated", 0, 4)

    with pytest.raises(PositionLostError, match="starts at 4, not at 0"):
        await until_it_ends(settings)


async def until_it_ends(settings: Settings) -> None:
    await asyncio.wait_for(serve(settings, asyncio.Event(), from_earliest=False), 20)


async def test_missing_topics_are_said_by_readiness(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"topic_prefix": "nowhere."})
    async with running_sink(nowhere):
        for _ in range(100):
            status, text = await http_get(settings.sink_metrics_port, "/health/ready")
            if "topics create" in text:
                break
            await asyncio.sleep(0.1)
    assert status == 503
    assert "metering topics create" in text
