"""`./metering bench`, `python -m bench`: all engines in one run, a table, and one JSON line."""

import argparse
import asyncio
import logging
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import uvloop

from bench.checking import differences, read_result
from bench.engines import apply_facts
from bench.machine import describe_machine
from bench.profiling import profile
from bench.queryable import run_pipeline
from bench.report import Report
from bench.rounds import FLOOR, FLOOR_OUTPUT, PLAIN, TURNS, WORKER, run_slices
from bench.stage import QUICK, Sizes, Stage
from schemas import topics

ENGINES = (*TURNS, "sink", "latency")
SIZES = ("events", "seen", "slices")


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when every engine's result is exact, 1 when one is not."""
    chosen = _parse(argv)
    chosen_sizes = {
        name: getattr(chosen, name) for name in SIZES if getattr(chosen, name) is not None
    }
    sizes = replace(QUICK if chosen.quick else Sizes(), **chosen_sizes)
    # New topics have no leader for a moment, which aiokafka rides out and talks about.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if chosen.profile:
            return runner.run(_profile(sizes, native=chosen.native, keep=chosen.samples))
        report = runner.run(_bench(sizes, chosen.only))
    for line in report.lines():
        print(line)
    print(report.json_line())
    return 0 if report.is_exact else 1


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="metering bench", description=__doc__)
    parser.add_argument("--events", type=int, help="for worker and floor (default 2,000,000)")
    parser.add_argument("--seen", type=int, help="ids seen before (default 10,000,000)")
    parser.add_argument("--slices", type=int, help="turns that worker and floor take (default 4)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test, not a measure")
    parser.add_argument(
        "--only", type=_engines, default=set(ENGINES), help="of " + ",".join(ENGINES)
    )
    parser.add_argument("--profile", action="store_true", help="the worker alone under py-spy")
    parser.add_argument("--native", action="store_true", help="profile C code too")
    parser.add_argument("--samples", type=Path, help="keep the profiler's samples in this file")
    return parser.parse_args(argv)


def _engines(text: str) -> set[str]:
    engines = set(text.split(","))
    unknown = engines - set(ENGINES)
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {ENGINES}")
    # Latencies are measured on the pipeline that the sink's run has started.
    return engines | {"sink"} if "latency" in engines else engines


async def _profile(sizes: Sizes, *, native: bool, keep: Path | None) -> int:
    async with Stage(sizes) as stage:
        await profile(stage, native=native, keep=keep)
    return 0


async def _bench(sizes: Sizes, engines: set[str]) -> Report:
    report = Report(describe_machine(), asdict(sizes))
    async with Stage(sizes) as stage:
        if engines - {PLAIN}:
            say(stage, f"topics, facts and {sizes.seen:,} seen ids")
            await stage.prepare()
        if engines & {WORKER, "sink"}:
            say(stage, "a worker recovers them")
            await apply_facts(stage.worker, stage.settings)
        if "sink" in engines:
            await _measure_pipeline(stage, report, engines)
        if engines & set(TURNS):
            await _measure_slices(stage, report, engines)
    return report


async def _measure_pipeline(stage: Stage, report: Report, engines: set[str]) -> None:
    sizes = stage.sizes
    say(stage, f"worker and sink, {sizes.sink_events:,} events, then {sizes.latency_rate:,}/s")
    outcome = await run_pipeline(stage, engines)
    report.measured["sink"] = [outcome.until_queryable]
    report.latencies = outcome.latencies
    report.problems["sink"] = outcome.problems


async def _measure_slices(stage: Stage, report: Report, engines: set[str]) -> None:
    first = total = sum(stage.workload.generated)
    if engines & {WORKER, FLOOR}:
        say(stage, f"{stage.sizes.events:,} events into the topic")
        total = await stage.fill(stage.sizes.events)
    slices = await run_slices(stage, engines, first, total)
    report.measured |= slices.measured
    if PLAIN in engines:
        report.problems[PLAIN] = slices.plain_problems
    outputs = {WORKER: stage.settings.topic(topics.USAGE_RATED), FLOOR: FLOOR_OUTPUT}
    for engine in outputs.keys() & slices.measured.keys():
        say(stage, f"checking {stage.workload.expected.rated:,} rows of the {engine}")
        result = await read_result(stage.settings, outputs[engine])
        report.problems[engine] = differences(stage.workload.expected, result)


def say(stage: Stage, what: str) -> None:
    """Progress, apart from the product on stdout."""
    print(f"[{time.monotonic() - stage.started_s:4.0f} s] {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
