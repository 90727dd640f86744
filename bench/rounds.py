"""Worker and floor on one pre-filled topic, in slices that take turns: a machine's other work hits
both alike. Each reads the same records and carries its state from slice to slice.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from typing import Final

from bench import loading
from bench.engines import FloorProcess, Progress
from bench.sampling import BROKER, Measured, watch
from bench.stage import STUCK_AFTER_S, Stage

FLOOR: Final = "floor"
FLOOR_OUTPUT: Final = "floor.usage-rated"


@dataclass
class Slices:
    """The measurements of each engine, in the order of the slices."""

    worker: list[Measured] = field(default_factory=list)
    floor: list[Measured] = field(default_factory=list)


async def run_worker_slice(stage: Stage, until: int) -> Measured:
    """A fresh process on the disk of the former one, stopped once so much is committed."""
    await stage.worker.start()
    try:
        async with Progress(stage.settings, stage.settings.app_id, stage.usage) as progress:
            measured = await watch(
                stage.pids(stage.worker.pid),
                progress.processed,
                until,
                stuck_after_s=STUCK_AFTER_S,
            )
        await stage.worker.stop()
    finally:
        stage.worker.kill()
    return measured


async def run_floor_slice(stage: Stage, floor: FloorProcess, until: int) -> Measured:
    async with Progress(stage.settings, FLOOR, stage.usage) as progress:
        measured = await watch(
            stage.pids(floor.pid),
            progress.processed,
            until,
            stuck_after_s=STUCK_AFTER_S,
            begin=lambda: floor.go(until),
        )
    await floor.done()
    return measured


async def new_floor(stage: Stage) -> FloorProcess:
    await loading.create_plain_topics(stage.settings, [FLOOR_OUTPUT], "delete")
    floor = FloorProcess(
        stage.values, FLOOR_OUTPUT, FLOOR, stage.seen_ends, stage.directory / "floor.log"
    )
    await floor.start()
    return floor


async def run_slices(stage: Stage, engines: set[str], first: int, total: int) -> Slices:
    """Records `first` to `total` in slices. The floor is brought up to `first` untimed."""
    slices = Slices()
    floor = await new_floor(stage) if FLOOR in engines else None
    try:
        if floor is not None and first:
            await run_floor_slice(stage, floor, first)
        for number in range(stage.sizes.slices):
            until = first + (total - first) * (number + 1) // stage.sizes.slices
            turns = ["worker", FLOOR] if number % 2 == 0 else [FLOOR, "worker"]
            for engine in turns:
                if engine not in engines:
                    continue
                if engine == "worker":
                    measured = await run_worker_slice(stage, until)
                    slices.worker.append(measured)
                else:
                    assert floor is not None
                    measured = await run_floor_slice(stage, floor, until)
                    slices.floor.append(measured)
                print(
                    f"  slice {number + 1} {engine:7} {one_line(measured)}",
                    file=sys.stderr,
                    flush=True,
                )
                await asyncio.sleep(0)
    finally:
        if floor is not None:
            await floor.stop()
    return slices


def one_line(measured: Measured) -> str:
    return (
        f"{measured.events_per_second:>9,.0f} events/s  "
        f"{measured.cpu_s_per_million():6.2f} CPU-s/M  "
        f"broker {measured.cpu_s_per_million(BROKER):5.2f}  "
        f"{measured.memory.rss:6,.0f} MiB"
    )
