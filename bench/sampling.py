"""Processes watched from outside: CPU-seconds, memory, and how far an engine has got."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import psutil

INTERVAL_S: Final = 0.1
WARM_UP_SHARE: Final = 0.2
"""Of a round's events the first fifth is not counted: a worker starts with cold caches."""
CPU_TICK_S: Final = 0.01
"""The kernel counts in these: nothing was less than one."""
ENGINE: Final = "engine"
BROKER: Final = "broker"


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    processed: int
    cpu_s: Mapping[str, float]
    """By the name of the process."""


@dataclass(slots=True)
class Memory:
    """Peaks in MiB. File-backed pages are the kernel's to take back: mapped seen ids, libraries."""

    rss: float = 0.0
    anonymous: float = 0.0
    file_backed: float = 0.0

    def observe(self, pid: int) -> None:
        fields = {}
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name.startswith("Rss") or name == "VmRSS":
                    fields[name] = int(rest.split()[0]) / 1024
                elif name == "State" and "Z" in rest:
                    raise ProcessLookupError(pid)
        self.rss = max(self.rss, fields.get("VmRSS", 0.0))
        self.anonymous = max(self.anonymous, fields.get("RssAnon", 0.0))
        self.file_backed = max(self.file_backed, fields.get("RssFile", 0.0))


@dataclass(frozen=True, slots=True)
class Measured:
    """One engine's round, warm-up left out."""

    events: int
    seconds: float
    cpu_s: Mapping[str, float]
    memory: Memory
    """Of the engine itself."""

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds

    def cpu_s_per_million(self, process: str = ENGINE) -> float:
        return max(self.cpu_s[process], CPU_TICK_S) / self.events * 1e6


class EngineEndedError(RuntimeError):
    """An engine ended, or did not get on, before its work was done."""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def watch(
    pids: Mapping[str, int],
    processed: Callable[[], Awaitable[int]],
    total: int,
    *,
    stuck_after_s: float,
    begin: Callable[[], None] = lambda: None,
) -> Measured:
    """Samples until `total` is processed; one of the processes is the ENGINE.

    `begin` is called after the first sample. Raises EngineEndedError when a process ends before,
    or nothing moved for `stuck_after_s`.
    """
    memory = Memory()
    samples: list[Sample] = []
    moved_at_s = time.monotonic()
    while not samples or samples[-1].processed < total:
        try:
            memory.observe(pids[ENGINE])
            count = await processed()
            now_s = time.monotonic()
            cpu_s = {name: cpu_seconds(pid) for name, pid in pids.items()}
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            raise EngineEndedError(f"one of {dict(pids)} ended before the work was done") from None
        if not samples or count > samples[-1].processed:
            moved_at_s = now_s
        if now_s - moved_at_s > stuck_after_s:
            raise EngineEndedError(f"{count} of {total} after {stuck_after_s:.0f} s without any")
        samples.append(Sample(now_s, count, cpu_s))
        if len(samples) == 1:
            begin()
        await asyncio.sleep(INTERVAL_S)
    return between(samples, memory)


def between(samples: list[Sample], memory: Memory) -> Measured:
    """From the end of the warm-up to the first sample with everything processed."""
    first, last = samples[0], samples[-1]
    if first is last:
        raise EngineEndedError("nothing was left to measure: more events, or fewer slices")
    warm = first.processed + (last.processed - first.processed) * WARM_UP_SHARE
    begin = next(sample for sample in samples if sample.processed >= warm)
    if begin is last:
        # Too quick for a warm-up: tiny sizes only.
        begin = first
    return Measured(
        last.processed - begin.processed,
        last.at_s - begin.at_s,
        {name: last.cpu_s[name] - begin.cpu_s[name] for name in last.cpu_s},
        memory,
    )
