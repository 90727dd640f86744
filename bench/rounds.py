"""Worker and floor on one pre-filled topic, in slices that take turns with plain Faust: a machine's
other work hits all alike. Worker and floor read the same records and carry their state from slice
to slice; plain Faust has few events, and topics of its own in each.
"""

import sys
from dataclasses import dataclass, field
from typing import Final

from bench import loading
from bench.engines import FloorProcess, Progress
from bench.plain import run_plain_faust
from bench.sampling import BROKER, Measured, watch
from bench.stage import STUCK_AFTER_S, Stage

WORKER: Final = "worker"
FLOOR: Final = "floor"
PLAIN: Final = "plain"
TURNS: Final = (WORKER, FLOOR, PLAIN)
FLOOR_OUTPUT: Final = "floor.usage-rated"


@dataclass
class Slices:
    """The measurements of each engine that ran, in the order of the slices."""

    measured: dict[str, list[Measured]] = field(default_factory=dict)
    plain_problems: list[str] = field(default_factory=list)


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
    await floor.wait_until_done()
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
            turns = [engine for engine in TURNS if engine in engines]
            for engine in turns if number % 2 == 0 else turns[::-1]:
                if engine == WORKER:
                    measured = await run_worker_slice(stage, until)
                elif engine == FLOOR:
                    assert floor is not None
                    measured = await run_floor_slice(stage, floor, until)
                else:
                    measured, problems = await run_plain_faust(stage, number + 1)
                    slices.plain_problems += problems
                slices.measured.setdefault(engine, []).append(measured)
                line = f"  slice {number + 1} {engine:7} {one_line(measured)}"
                print(line, file=sys.stderr, flush=True)
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
