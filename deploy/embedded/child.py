"""A child process, an engine or one of ours: started, watched until ready, stopped or killed.

Guarantees: `wait_until` returns only when the child is ready, or raises `EngineError` with why, as
its output tells, and leaves no process behind; `stop` and `kill` return only when the process is
gone. Every call blocks its thread; from asyncio use `asyncio.to_thread`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

import psutil

from deploy.embedded.said import Logs

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
POLL_SECONDS = 0.05
BUSY_SHARE = 0.05
"""A process that uses so much of a core makes progress, however slow the machine is: an engine that
only waits uses less."""
PROJECT_ROOT = Path(__file__).resolve().parents[2]
SETTINGS_PREFIX = "METERING_"

_Start = Callable[[], "subprocess.Popen[bytes]"]


def clean_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process of ours is given: the machine's variables without any setting of ours, where
    our code is, and then these variables."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_PREFIX)
    }
    # Where our code is, and not first of all in the working directory, which is anybody's.
    ours = {"PYTHONPATH": str(PROJECT_ROOT), "PYTHONSAFEPATH": "1"}
    return {**inherited, **ours, **(variables or {})}


class EngineError(RuntimeError):
    """An engine could not be started; the message says which, why, and where its output is."""


class ChildProcess:
    """A command with its output in a file. One thread starts it; any may stop or kill it."""

    def __init__(
        self,
        name: str,
        output: Path,
        *,
        die_with_parent: bool,
        keeps_output: bool = False,
        logs: Sequence[Path] = (),
    ) -> None:
        """`logs` are what it writes besides its output. `keeps_output`: what a former start wrote
        stays before what the next one writes."""
        self.name = name
        self._logs = Logs((*logs, output))
        self._mode = "ab" if keeps_output else "wb"
        self.output = output
        self.die_with_parent = die_with_parent
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The engine's own pid, or None when it does not run."""
        return self._process.pid if self._process is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the last process ended (negative: by which signal); None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        if self.is_running:
            raise EngineError(f"{self.name} is running already (pid {self.pid})")
        self.output.parent.mkdir(parents=True, exist_ok=True)
        full = [*self._guard(), *command]
        if self._mode == "wb":
            self.output.unlink(missing_ok=True)
        self._logs.mark()

        def spawn() -> "subprocess.Popen[bytes]":
            with self.output.open(self._mode) as output:
                return subprocess.Popen(
                    full,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C at the terminal goes to the supervisor alone, which stops its
                    # engines in the right order.
                    start_new_session=True,
                )

        self._process = _start_in_lasting_thread(spawn)

    def wait_until(
        self,
        is_ready: Callable[[], bool],
        patience_seconds: float,
        is_waiting: Callable[[], bool] = lambda: False,
    ) -> None:
        """Return once `is_ready`, however long that takes on a slow machine. Kill the process and
        raise when for `patience_seconds` it has written nothing, hardly used the processor, and
        does not say that it waits for somebody else (`is_waiting`)."""
        former, deadline = self._progress(), time.monotonic() + patience_seconds
        while True:
            was_running = self.is_running
            if is_ready():
                return
            if not was_running:
                raise self.failure(f"ended with exit code {self.exit_code}")
            if time.monotonic() > deadline:
                now, least_cpu = self._progress(), BUSY_SHARE * patience_seconds
                if now[0] == former[0] and now[1] - former[1] < least_cpu and not is_waiting():
                    self.kill()
                    raise self.failure(f"made no progress for {patience_seconds:.0f} s")
                former, deadline = now, time.monotonic() + patience_seconds
            time.sleep(POLL_SECONDS)

    def _progress(self) -> tuple[list[int], float]:
        """How much it has written, and how many seconds of processor time it has used."""
        try:
            times = psutil.Process(self.pid or 0).cpu_times()
        except psutil.Error:
            return self._logs.sizes, 0.0
        return self._logs.sizes, times.user + times.system

    def stop(self, timeout_seconds: float) -> None:
        """Ask it to end cleanly; kill it when it has not within the time given."""
        if self._process is None:
            return
        self.send(signal.SIGTERM)
        # A frozen process ends only when it runs again.
        self.send(signal.SIGCONT)
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        if self._process is None:
            return
        if self.is_running:
            self._process.kill()
        self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """A signal, if it runs."""
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    def why(self) -> str:
        """What it said went wrong since its last start, on one line; may be empty."""
        return self._logs.why()

    def failure(self, what: str) -> EngineError:
        cause = self.why()
        return EngineError(f"{self.name} {what}{f': {cause}' if cause else ''} ({self.output})")

    def _guard(self) -> list[str]:
        if not self.die_with_parent:
            return []
        return [sys.executable, "-I", "-S", str(DIE_WITH_PARENT), str(os.getpid())]


# The kernel's "parent" in PR_SET_PDEATHSIG is the thread that forked: a child started from a
# thread that ends would be killed with the thread. So one thread, which lasts as long as the
# process, starts all children.
_starts: SimpleQueue[tuple[_Start, "Future[subprocess.Popen[bytes]]"]] = SimpleQueue()
_starter_lock = Lock()
_starter: Thread | None = None


def _start_in_lasting_thread(start: _Start) -> "subprocess.Popen[bytes]":
    global _starter
    with _starter_lock:
        if _starter is None or not _starter.is_alive():
            _starter = Thread(target=_serve_starts, name="engine-starter", daemon=True)
            _starter.start()
    outcome: Future[subprocess.Popen[bytes]] = Future()
    _starts.put((start, outcome))
    return outcome.result()


def _serve_starts() -> None:
    while True:
        start, outcome = _starts.get()
        try:
            outcome.set_result(start())
        except Exception as error:  # noqa: BLE001 - handed to the caller, who raises it
            outcome.set_exception(error)
