"""The runtime under a plain Faust app on the real broker: killed, frozen, moved, disk lost."""

import asyncio
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.exactly_once.harness import PARTITIONS, Counting

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def counting(kafka: Any, tmp_path: Path) -> AsyncIterator[Counting]:
    prefix = f"c{random.randrange(10**9)}-"
    async with Counting(kafka.bootstrap, prefix, tmp_path, seed=11) as running:
        yield running


async def test_exact_when_one_worker_is_killed_again_and_again(counting: Counting) -> None:
    counting.start("a")
    feeding = asyncio.create_task(counting.send_numbers(30_000))
    for _ in range(4):
        await asyncio.sleep(counting.rng.uniform(1.0, 2.5))
        counting.kill("a")
        counting.start("a")
    await feeding
    await counting.assert_exact()


async def test_exact_when_partitions_move_between_killed_workers(counting: Counting) -> None:
    counting.start("a")
    counting.start("b")
    feeding = asyncio.create_task(counting.send_numbers(30_000))
    for name in ("a", "b", "a"):
        await asyncio.sleep(counting.rng.uniform(1.5, 3.0))
        counting.kill(name)
        if counting.rng.random() < 0.5:
            await asyncio.sleep(7)  # longer than the session: the other worker takes over
        counting.start(name)
    await feeding
    await counting.assert_exact()


async def test_a_frozen_worker_is_fenced_and_ends(counting: Counting) -> None:
    counting.start("a")
    counting.start("b")
    await counting.send_numbers(4_000)
    await asyncio.sleep(3)
    counting.workers["a"].send_signal(signal.SIGSTOP)
    await counting.send_numbers(8_000)
    await asyncio.sleep(8)  # the session is 6 s: b owns everything now
    await counting.send_numbers(2_000)
    counting.workers["a"].send_signal(signal.SIGCONT)
    await counting.send_numbers(2_000)
    await counting.assert_exact()


async def test_a_lost_disk_is_rebuilt_from_the_changelogs(counting: Counting) -> None:
    counting.start("a")
    await counting.send_numbers(5_000)
    await counting.assert_exact()
    counting.kill("a")
    counting.lose_disk("a")
    counting.start("a")
    # Only a rebuilt set of seen ids knows them.
    await counting.send_again(2_000)
    await counting.send_numbers(1_000)
    await counting.assert_exact()
    assert sum(records for _, records, _ in counting.recoveries("a")[PARTITIONS:]) > 0


async def test_a_recovery_longer_than_the_request_timeout_with_a_rebalance_inside(
    counting: Counting,
) -> None:
    slow = {"COUNTING_SLOW_RECOVERY_S": "12", "COUNTING_REQUEST_TIMEOUT_S": "8"}
    counting.start("a", **slow)
    await asyncio.sleep(6)
    counting.start("b", **slow)  # joins while a still recovers
    await counting.send_numbers(3_000)
    await counting.assert_exact(within_s=90)
    assert counting.recoveries("a")
    assert counting.recoveries("b")


async def test_facts_are_applied_before_the_numbers_sent_after_them(counting: Counting) -> None:
    counting.start("a")
    await counting.send_numbers(1, duplicates=0)
    await counting.assert_exact()
    for factor in range(1000, 1040):
        await counting.set_factor("k0", factor)
        identity = f"f{factor}"
        counting.sent[identity] = ("k0", 1)
        await counting.send("numbers", "k0", {"id": identity, "key": "k0", "n": 1})
    totals = {row["id"]: row["total"] for row in await counting.totals(within_s=30)}
    series = [totals[f"f{factor}"] for factor in range(1000, 1040)]
    applied = [after - before for before, after in itertools.pairwise(series)]
    # A factor sent later may be known already; one sent before must be.
    assert all(factor <= used for factor, used in zip(range(1001, 1040), applied, strict=True))


async def test_a_killed_worker_works_again_within_seconds(counting: Counting) -> None:
    counting.start("a")
    await counting.send_numbers(2_000)
    await counting.assert_exact()
    counting.kill("a")
    counting.start("a")
    started = time.monotonic()
    await counting.send_numbers(50)
    await counting.assert_exact(within_s=20)
    # The promise is 3 s on an idle machine; here it must only not wait for the session to end.
    assert time.monotonic() - started < 20
    assert all(records < 100 for _, records, _ in counting.recoveries("a")[PARTITIONS:])


async def test_the_clock_waits_for_what_stands_behind_an_open_transaction(
    counting: Counting,
) -> None:
    """A worker that is killed leaves transactions open, in which it had forwarded events to other
    partitions; what is sent there meanwhile came before the clock strikes."""
    async with counting.open_transaction("numbers"):
        await counting.send_numbers(400, duplicates=0)
        counting.start("a", COUNTING_TICK_S="0.3")
        assert await counting.ids_by_partition(within_s=8) == {}
    by_partition = await counting.ids_by_partition(within_s=8)
    assert sum(len(ids) - ids.count("clock") for ids in by_partition.values()) == 400
    for ids in by_partition.values():
        assert set(ids[ids.index("clock") :]) == {"clock"}


async def test_the_clock_waits_for_the_backlog(counting: Counting) -> None:
    await counting.send_numbers(6_000, duplicates=0)
    counting.start("a", COUNTING_TICK_S="0.3", COUNTING_BATCH="100")
    by_partition = await counting.ids_by_partition(within_s=15)
    assert sum(len(ids) - ids.count("clock") for ids in by_partition.values()) == 6_000
    for ids in by_partition.values():
        first_strike = ids.index("clock")
        assert "clock" in ids
        assert set(ids[first_strike:]) == {"clock"}
