"""`./metering bench`, `python -m bench`: all engines in one run, a table, and one JSON line."""

import argparse
import asyncio
import logging
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from bench import loading
from bench.checking import differences, read_result
from bench.engines import apply_facts
from bench.profiling import profile
from bench.rounds import FLOOR_OUTPUT, run_slices
from bench.stage import QUICK, Sizes, Stage
from schemas import topics

ENGINES = ("worker", "floor", "sink", "latency", "plain")


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when every engine's result is exact."""
    chosen = _parse(argv)
    sizes = QUICK if chosen.quick else Sizes()
    if chosen.events is not None:
        sizes = replace(sizes, events=chosen.events)
    if chosen.seen is not None:
        sizes = replace(sizes, seen=chosen.seen)
    if chosen.slices is not None:
        sizes = replace(sizes, slices=chosen.slices)
    # New topics have no leader for a moment, which aiokafka rides out and talks about.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if chosen.profile:
            return runner.run(_profile(sizes, native=chosen.native, keep=chosen.samples))
        return runner.run(_bench(sizes, set(chosen.only.split(","))))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="metering bench", description=__doc__)
    parser.add_argument("--events", type=int, help="for worker and floor")
    parser.add_argument("--seen", type=int, help="ids seen before")
    parser.add_argument("--slices", type=int, help="turns that worker and floor take")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test, not a measure")
    parser.add_argument("--only", default=",".join(ENGINES), help="of " + ",".join(ENGINES))
    parser.add_argument("--profile", action="store_true", help="the worker alone under py-spy")
    parser.add_argument("--native", action="store_true", help="profile C code too")
    parser.add_argument("--samples", type=Path, help="keep the profiler's samples in this file")
    return parser.parse_args(argv)


async def _profile(sizes: Sizes, *, native: bool, keep: Path | None) -> int:
    async with Stage(sizes) as stage:
        await profile(stage, native=native, keep=keep)
    return 0


async def _bench(sizes: Sizes, engines: set[str]) -> int:
    async with Stage(sizes) as stage:
        await loading.prepare(stage.settings, stage.workload, sizes.seen)
        await apply_facts(stage.worker, stage.settings)
        total = await stage.fill(sizes.events)
        await run_slices(stage, engines, 0, total)
        wrong = 0
        outputs = {"worker": stage.settings.topic(topics.USAGE_RATED), "floor": FLOOR_OUTPUT}
        for engine, topic in outputs.items():
            if engine in engines:
                problems = differences(
                    stage.workload.expected, await read_result(stage.settings, topic)
                )
                print(f"  {engine}: {'exact' if not problems else problems}", flush=True)
                wrong += bool(problems)
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
