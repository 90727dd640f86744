"""Worker and sink together, until everything is queryable in ClickHouse; then latencies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench import latency
from bench.checking import Result, differences
from bench.engines import PipelineProcess
from bench.sampling import Measured, watch
from bench.stage import STUCK_AFTER_S, Stage
from bench.workload import Totals
from deploy.embedded import EmbeddedClickHouse
from schemas.settings import Settings
from sinks.inserts import Inserter
from warehouse.migrations import migrate

SUMS = (
    "SELECT organization_id, count(), toString(sum(toInt128(cost_micro))),"
    " toString(sum(toInt128(website_debit_micro))), toString(sum(toInt128(group_debit_micro))),"
    " toString(sum(toInt128(overage_micro))) FROM usage_rated GROUP BY organization_id"
)


@dataclass
class Queryable:
    """The whole pipeline's figures."""

    until_queryable: Measured
    latencies: latency.Latencies | None
    problems: list[str]


async def run_pipeline(stage: Stage, engines: set[str]) -> Queryable:
    """Runs worker and sink over `sink_events` records, then at the pace. Facts are applied."""
    async with _pipeline(stage) as (sink, clickhouse, inserter):
        await stage.fill(stage.sizes.sink_events)
        await stage.worker.start()
        assert clickhouse.pid is not None

        async def queryable() -> int:
            return int(await inserter.text("SELECT count() FROM usage_rated_rows"))

        measured = await watch(
            stage.pids(stage.worker.pid, sink=sink.pid, clickhouse=clickhouse.pid),
            queryable,
            stage.workload.expected.rated,
            stuck_after_s=STUCK_AFTER_S,
        )
        latencies = None
        if "latency" in engines:
            latencies = await latency.measure(stage, inserter)
        problems = await _check(stage, inserter)
        await stage.worker.stop()
    return Queryable(measured, latencies, problems)


@asynccontextmanager
async def _pipeline(
    stage: Stage,
) -> AsyncIterator[tuple[PipelineProcess, EmbeddedClickHouse, Inserter]]:
    clickhouse = EmbeddedClickHouse(stage.directory)
    await asyncio.to_thread(clickhouse.start)
    values = {
        **stage.values,
        "clickhouse_url": clickhouse.url,
        "clickhouse_user": clickhouse.writer.name,
        "clickhouse_password": clickhouse.writer.password,
    }
    settings = Settings(**values)
    sink = PipelineProcess("sink", values, stage.sink_port, stage.directory / "sink.log")
    try:
        await asyncio.to_thread(migrate, settings)
        inserter = Inserter(settings)
        try:
            await sink.start()
            await sink.ready()
            yield sink, clickhouse, inserter
            await sink.stop()
        finally:
            await inserter.close()
    finally:
        stage.worker.kill()
        sink.kill()
        await asyncio.to_thread(clickhouse.stop)


async def _check(stage: Stage, inserter: Inserter) -> list[str]:
    """Sums by organization as finance would ask for them, against the workload's reckoning."""
    result = Result()
    for line in (await inserter.text(SUMS)).splitlines():
        name, *numbers = line.split("\t")
        totals = result.totals[name] = Totals(*map(int, numbers))
        result.rows += totals.rated
    # Ids are not read: the view has one row for each, so a repetition would be missing elsewhere.
    result.numbers = set(range(result.rows))
    return differences(stage.workload.expected, result)
