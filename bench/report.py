"""Figures as a table for people and one JSON line for programs."""

import json
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.latency import Latencies, percentile
from bench.sampling import BROKER, ENGINE, Measured

TARGETS: Mapping[str, tuple[str, float]] = {
    "ratio_to_plain_faust": (">=", 30.0),
    "ratio_to_floor": (">=", 0.8),
    "cpu_ratio_to_floor": ("<=", 1.25),
}
NAMES: Mapping[str, str] = {
    "worker": "this pipeline: worker",
    "sink": "this pipeline: worker + sink, until queryable",
    "floor": "floor: bare aiokafka loop",
    "plain": "plain Faust with tables",
}


@dataclass
class Report:
    """Everything measured in one run. An engine that did not run is not in the maps."""

    machine: Mapping[str, Any]
    sizes: Mapping[str, Any]
    measured: dict[str, list[Measured]] = field(default_factory=dict)
    """By engine, a measurement a slice."""
    latencies: Latencies | None = None
    problems: dict[str, list[str]] = field(default_factory=dict)
    """By engine what its check found; empty lists are what is hoped for."""

    @property
    def is_exact(self) -> bool:
        return not any(self.problems.values())

    def figures(self) -> dict[str, Any]:
        """What the JSON line says. Engines are compared slice by slice, then by the median."""
        figures: dict[str, Any] = {"exact": self.is_exact}
        for engine, prefix in (("worker", ""), ("floor", "floor_"), ("plain", "plain_faust_")):
            figures |= self._figures_of(engine, prefix)
        figures |= self._figures_of("sink", "queryable_")
        if self.latencies is not None:
            figures |= {
                "latency_rate": round(self.latencies.rate),
                "rated_p50_ms": round(percentile(self.latencies.rated_ms, 50), 1),
                "rated_p99_ms": round(percentile(self.latencies.rated_ms, 99), 1),
                "queryable_p50_ms": round(percentile(self.latencies.queryable_ms, 50), 1),
                "queryable_p99_ms": round(percentile(self.latencies.queryable_ms, 99), 1),
            }
        figures |= self._ratios()
        return {
            **figures,
            "problems": {
                engine: problems for engine, problems in self.problems.items() if problems
            },
            "sizes": dict(self.sizes),
            "machine": {**self.machine, "load_average_after": round(os.getloadavg()[0], 2)},
        }

    def _figures_of(self, engine: str, prefix: str) -> dict[str, Any]:
        runs = self.measured.get(engine)
        if not runs:
            return {}
        figures = {
            f"{prefix}events_per_second": round(_median(runs, lambda run: run.events_per_second)),
            f"{prefix}cpu_seconds_per_million": _cpu(runs, ENGINE),
            f"{prefix}broker_cpu_seconds_per_million": _cpu(runs, BROKER),
            f"{prefix}peak_rss_mib": round(max(run.memory.rss for run in runs)),
            f"{prefix}peak_anonymous_mib": round(max(run.memory.anonymous for run in runs)),
            f"{prefix}peak_file_backed_mib": round(max(run.memory.file_backed for run in runs)),
        }
        for process in runs[0].cpu_s.keys() - {ENGINE, BROKER}:
            figures[f"{process}_cpu_seconds_per_million"] = _cpu(runs, process)
        return figures

    def _ratios(self) -> dict[str, float]:
        ratios: dict[str, float] = {}
        worker = self.measured.get("worker", [])
        for engine, name in (("floor", "floor"), ("plain", "plain_faust")):
            pairs = list(zip(worker, self.measured.get(engine, []), strict=False))
            if pairs:
                ratios[f"ratio_to_{name}"] = statistics.median(
                    ours.events_per_second / other.events_per_second for ours, other in pairs
                )
                ratios[f"cpu_ratio_to_{name}"] = statistics.median(
                    ours.cpu_s_per_million() / other.cpu_s_per_million() for ours, other in pairs
                )
        return {name: round(ratio, 3) for name, ratio in ratios.items()}

    def lines(self) -> Iterable[str]:
        """The table."""
        figures = self.figures()
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        yield f"on {machine}"
        yield ""
        yield (
            f"{'':46} {'events/s':>9} {'CPU-s/M':>8} {'broker':>7} "
            f"{'RSS MiB':>8} {'anon':>6} {'file':>6}  result"
        )
        for engine, name in NAMES.items():
            if engine in self.measured:
                yield self._row(engine, name)
        yield ""
        if self.latencies is not None:
            for name in ("rated", "queryable"):
                p50, p99 = figures[f"{name}_p50_ms"], figures[f"{name}_p99_ms"]
                yield (
                    f"produce to {name} at {figures['latency_rate']:,} events/s: "
                    f"p50 {p50:,.0f} ms, p99 {p99:,.0f} ms"
                )
        for name, (sign, target) in TARGETS.items():
            if name in figures:
                is_met = figures[name] >= target if sign == ">=" else figures[name] <= target
                verdict = "met" if is_met else "missed"
                yield f"{name} {figures[name]:.2f}, target {sign} {target}: {verdict}"
        for engine, problems in self.problems.items():
            for problem in problems:
                yield f"WRONG {NAMES[engine]}: {problem}"

    def _row(self, engine: str, name: str) -> str:
        runs = self.measured[engine]
        checked = self.problems.get(engine)
        result = "not checked" if checked is None else "WRONG" if checked else "exact"
        return (
            f"{name:46} {_median(runs, lambda run: run.events_per_second):>9,.0f} "
            f"{_cpu(runs, ENGINE):>8.2f} {_cpu(runs, BROKER):>7.2f} "
            f"{max(run.memory.rss for run in runs):>8,.0f} "
            f"{max(run.memory.anonymous for run in runs):>6,.0f} "
            f"{max(run.memory.file_backed for run in runs):>6,.0f}  {result}"
        )

    def json_line(self) -> str:
        return json.dumps(self.figures(), separators=(",", ":"))


def _median(runs: list[Measured], value: Callable[[Measured], float]) -> float:
    return statistics.median(value(run) for run in runs)


def _cpu(runs: list[Measured], process: str) -> float:
    return round(_median(runs, lambda run: run.cpu_s_per_million(process)), 2)
