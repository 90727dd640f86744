"""`metering up` as a child process, for tests that need all of it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from deploy.embedded.child import PROJECT_ROOT, clean_environment

START_S = 120.0
STOP_S = 60.0


class RunningUp:
    """Start it, read what it says, stop it; always `end` it."""

    def __init__(self, data_dir: Path, *options: str, **variables: str) -> None:
        self.data_dir = data_dir
        self.output = data_dir.with_suffix(f".{time.monotonic_ns()}.out")
        command = [sys.executable, "-m", "cli", "up", "--data-dir", str(data_dir), *options]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=PROJECT_ROOT,
                env=clean_environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, pattern: str, seconds: float = START_S) -> str:
        """The first match in what it says."""
        deadline = time.monotonic() + seconds
        while not (match := re.search(pattern, self.said)):
            assert self.process.poll() is None, f"it ended:\n{self.said}"
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.said}"
            time.sleep(0.1)
        return match[0]

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, command: str) -> psutil.Process:
        """The process of a part, by its command line."""
        (process,) = [each for each in self.children() if command in " ".join(each.cmdline())]
        return process

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_S)

    def end(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


def all_gone(processes: list[psutil.Process], seconds: float = 10.0) -> bool:
    """Whether they all end within the time."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


def metering(data_dir: Path, *arguments: str, stdin: str = "") -> str:
    """What a command in another terminal prints."""
    outcome = subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        env=clean_environment({"METERING_DATA_DIR": str(data_dir)}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def paste(said: str) -> list[str]:
    """What the lines print that `up` offers for HTTP and SQL, those of the API as JSON."""
    lines = said.partition("by HTTP")[2].partition("Ctrl-C")[0].partition("\n")[2]
    outcome = subprocess.run(
        ["/bin/bash", "-ec", lines], capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.splitlines()
