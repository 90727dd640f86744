"""A round: the pipeline is started, fed and hurt at the same time, then compared with the model."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from cli.verification.faults import Faults
from cli.verification.feed import Feed
from cli.verification.pipeline import FORFEIT_INTERVAL_S, LATE_GRACE_S, Pipeline
from cli.verification.pool_check import PoolName, compare_pools, last_pools
from cli.verification.replay import Verdict, replay
from cli.verification.settle import settle
from cli.verification.shop import Shop
from cli.verification.topic_contents import Contents, read_partition
from cli.verification.warehouse_check import compare_ledger, compare_partition, compare_spend
from cli.verification.workload import Workload
from schemas.records import Pool
from schemas.topics import LEDGER

ORGANIZATIONS: Final = 24
BURSTS_A_FAULT: Final = 4
PAUSE_S: Final = 1.0
"""Between faults, on average: long enough for a killed worker to be in the middle of things."""
SETTLE_S: Final = 300.0
PURCHASES_LEAST: Final = 6
"""At least so many purchases are made meanwhile, and one a fault."""


@dataclass(frozen=True)
class Options:
    """What `metering verify` was asked for; durations in seconds, 0 for not at all."""

    events: int
    kills: int
    workers: int
    seed: int
    slow_recovery_s: float = 0.0
    request_timeout_s: float = 90.0
    down_s: float = 0.0


@dataclass
class Result:
    verdict: Verdict
    figures: dict[str, Any]
    ended_by_themselves: int


async def run_round(options: Options, directory: Path, say: Callable[[str], None]) -> Result:
    """The whole proof. Raises EngineError or PipelineError when it cannot be carried through."""
    started = time.monotonic()
    pipeline = Pipeline(
        directory, options.workers, options.slow_recovery_s, options.request_timeout_s
    )
    say(f"starting Kafka, ClickHouse, {options.workers} workers and the sink in {directory}")
    shop = Shop(pipeline, options.seed, say)
    try:
        await pipeline.start()
        await shop.open()
        watch = asyncio.create_task(pipeline.watch(), name="watch")
        work = asyncio.create_task(_feed_and_hurt(options, pipeline, shop, say), name="round")
        await asyncio.wait((watch, work), return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            watch.result()
        watch.cancel()
        work_done = work.result()
        await pipeline.stop_ours()
        verdict = await _compare(pipeline, work_done, shop, say)
    finally:
        pipeline.stop_all()
        shop.stop()
    figures = {
        "input": verdict.counts["input"],
        "rated": verdict.counts["rated"],
        "duplicates": verdict.counts["duplicates"],
        "dead_letters": verdict.counts["dead_letters"],
        "facts": verdict.counts["memberships"] + verdict.counts["credits"],
        "sent_on": verdict.counts["sent_on"],
        "replayed": verdict.counts["replayed"],
        **{
            name: shop.counts[name]
            for name in ("purchases", "renewals", "refunds", "api_kills", "stripe_kills")
        },
        "lost": verdict.differences.lost,
        "duplicated": verdict.differences.duplicated,
        "wrong": verdict.differences.wrong,
        **{
            name: work_done.faults.counts[name]
            for name in (
                "kills",
                "zombies",
                "broker_restarts",
                "clickhouse_restarts",
                "disks_lost",
                "rebalances",
            )
        },
        "seconds": round(time.monotonic() - started, 1),
        "seed": options.seed,
    }
    ended = sum(process.ended_by_itself for process in pipeline.processes)
    return Result(verdict, figures, ended)


@dataclass
class _Work:
    workload: Workload
    faults: Faults
    settled_at: datetime
    replayed: int


async def _feed_and_hurt(
    options: Options, pipeline: Pipeline, shop: Shop, say: Callable[[str], None]
) -> _Work:
    settings = pipeline.settings
    workload = Workload(options.events, ORGANIZATIONS, settings.partitions, options.seed)
    faults = Faults(pipeline, options.seed, say, options.down_s)
    feed = Feed(pipeline.kafka.bootstrap)
    try:
        await feed.send(workload.opening(datetime.now(UTC)))
        hurting = asyncio.create_task(_hurt(options, faults), name="faults")
        trading = asyncio.create_task(
            shop.trade(max(PURCHASES_LEAST, options.kills)), name="purchases"
        )
        try:
            await _feed(options, workload, feed, hurting)
            await hurting
            await trading
        finally:
            hurting.cancel()
            trading.cancel()
        await shop.settle()
        say(f"{feed.acknowledged:,} records sent; waiting until all is processed")
        await settle(pipeline, SETTLE_S + 2 * options.slow_recovery_s)
        await feed.send(workload.mending(datetime.now(UTC)))
    finally:
        await feed.close()
    replayed = await _replay_dead_letters(pipeline, say)
    now = datetime.now(UTC)
    due = (workload.last_expiry or now) + timedelta(seconds=LATE_GRACE_S + 5 * FORFEIT_INTERVAL_S)
    await asyncio.sleep(max(0.0, (due - now).total_seconds()))
    settled_at = datetime.now(UTC)
    await settle(pipeline, SETTLE_S)
    return _Work(workload, faults, settled_at, replayed)


async def _feed(
    options: Options, workload: Workload, feed: Feed, hurting: "asyncio.Task[None]"
) -> None:
    """Bursts while the faults last, the rest at the end: queues are full at some, empty at others.

    Raises what the faults raised.
    """
    random = Random(f"{options.seed}:feed")  # noqa: S311 - no secrets
    burst = max(1, options.events // (max(options.kills, 1) * BURSTS_A_FAULT))
    await feed.send(workload.arrival(datetime.now(UTC)))
    for message in workload.largest():
        await feed.send([message])
    while workload.remaining:
        if hurting.done():
            hurting.result()
        now = datetime.now(UTC)
        await feed.send(workload.burst(random.randint(1, 2 * burst), now))
        await asyncio.sleep(random.uniform(0, 2 * PAUSE_S / BURSTS_A_FAULT))


async def _hurt(options: Options, faults: Faults) -> None:
    random = Random(f"{options.seed}:pauses")  # noqa: S311 - no secrets
    if options.slow_recovery_s:
        await faults.rebalance_in_recovery(options.slow_recovery_s)
    for number in range(options.kills):
        await asyncio.sleep(random.uniform(0, 2 * PAUSE_S))
        await faults.one()
        if number == options.kills // 2:
            await faults.outages()


async def _replay_dead_letters(pipeline: Pipeline, say: Callable[[str], None]) -> int:
    """`metering dead-letters replay --all`, twice; how many it says it sent in all."""
    total = 0
    for number in range(2):
        answer = await asyncio.to_thread(pipeline.run, "dead-letters", "replay", "--all")
        total += int(answer.split()[0])
        say(f"dead letters: {answer.splitlines()[0]}")
        if number == 0:
            pipeline.workers[0].kill()
            pipeline.workers[0].start()
            await settle(pipeline, SETTLE_S)
    return total


async def _compare(
    pipeline: Pipeline, outcome: _Work, shop: Shop, say: Callable[[str], None]
) -> Verdict:
    """One partition after the other, so that memory holds one at a time (and ledger and pools)."""
    settings = pipeline.settings
    total, ledgers, pools = Verdict(), list[Contents](), dict[PoolName, Pool]()
    for partition in range(settings.partitions):
        contents = await read_partition(settings, partition)
        expected = outcome.workload.expected
        total.add(await asyncio.to_thread(replay, contents, settings, expected, outcome.settled_at))
        await asyncio.to_thread(compare_partition, settings, contents, total.differences)
        ledgers.append(Contents(partition, {LEDGER: contents.records[LEDGER]}))
        pools |= last_pools(contents)
        shop.take(contents, total.differences)
        say(f"partition {partition} compared: {total.differences.total} differences so far")
    total.compare_forwarding()
    await asyncio.to_thread(shop.compare, total.differences)
    if total.counts["replayed"] < outcome.replayed:
        total.differences.note_lost(
            f"{outcome.replayed} dead letters were replayed, "
            f"{total.counts['replayed']} are in usage"
        )
    await asyncio.to_thread(compare_ledger, settings, ledgers, total.differences)
    await asyncio.to_thread(compare_spend, settings, total, total.differences)
    await asyncio.to_thread(compare_pools, settings, pools, total.differences)
    return total
