"""`bench --profile`: where the worker's time goes, by py-spy from outside.

py-spy is not among the project's packages: a profiler reads other processes' memory, which needs
root or ptrace rights. It is looked for on PATH and in PY_SPY.
"""

import asyncio
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Final

from bench.engines import Progress, apply_facts
from bench.sampling import watch
from bench.stage import STUCK_AFTER_S, Stage

SAMPLES_A_SECOND: Final = 250
FRAMES_SHOWN: Final = 45
WAITING: Final = ("epoll_wait", "epoll_pwait", "pthread_cond_timedwait")
"""Frames, as far as C code is shown, in which a thread waits: for a socket, or for the GIL."""
SAMPLES_FILE: Final = "worker.folded"


def find_py_spy() -> str:
    """Raises FileNotFoundError with what to do."""
    path = os.environ.get("PY_SPY") or shutil.which("py-spy")
    if not path:
        raise FileNotFoundError(
            "--profile needs py-spy: `pip install py-spy` anywhere, and PY_SPY=<its path>"
        )
    return path


async def profile(stage: Stage, *, native: bool, keep: Path | None) -> None:
    """Runs the worker alone over the whole topic under py-spy, and prints where time goes; `keep`
    is a file for the samples, which any flame graph viewer reads."""
    py_spy = find_py_spy()
    samples = stage.directory / SAMPLES_FILE
    await stage.prepare()
    await apply_facts(stage.worker, stage.settings)
    total = await stage.fill(stage.sizes.events)
    await stage.worker.start()
    await stage.worker.ready()
    command = [
        py_spy, "record", "--pid", str(stage.worker.pid), "--rate", str(SAMPLES_A_SECOND),
        "--format", "raw", "--output", str(samples), "--threads",
        "--duration", "unlimited", "--native" if native else "--nonblocking",
    ]  # fmt: skip
    spy = await asyncio.create_subprocess_exec(*command)
    async with Progress(stage.settings, stage.settings.app_id, stage.usage) as progress:
        measured = await watch(
            stage.pids(stage.worker.pid),
            progress.processed,
            total,
            stuck_after_s=STUCK_AFTER_S,
        )
    await stage.worker.stop()
    await spy.wait()
    print(
        f"worker under the profiler: {measured.events_per_second:,.0f} events/s, "
        f"{measured.cpu_s_per_million():.2f} CPU-s per million"
    )
    if keep is not None:
        shutil.copyfile(samples, keep)
    report(samples.read_text().splitlines())


def report(lines: list[str]) -> None:
    """Self and inclusive share of each function, of all samples of all threads that work."""
    own: Counter[str] = Counter()
    python: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    total = 0
    for line in lines:
        stack, _, count_text = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";")]
        count = int(count_text)
        if any(frame.startswith(WAITING) for frame in frames[-2:]):
            continue
        total += count
        own[frames[-1]] += count
        callers = [frame for frame in frames if frame.endswith(".py)")]
        python[callers[-1] if callers else frames[-1]] += count
        for frame in set(frames):
            inclusive[frame] += count
    tables = [("self", own), ("self, C code under its Python caller", python)]
    for title, counted in [*tables[: 1 if python == own else 2], ("inclusive", inclusive)]:
        print(f"--- {title}, of {total} samples")
        for frame, count in counted.most_common(FRAMES_SHOWN):
            print(f"{count / total:6.1%}  {frame}")
        print()


def _short(frame: str) -> str:
    """`function (file:line)` without the line, and without the way to the file."""
    name, _, place = frame.partition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({'/'.join(path.split('/')[-2:])})" if path else name
