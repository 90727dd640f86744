"""A child process, an engine or one of ours: started, watched until ready, stopped or killed.

Guarantees: `wait_until` returns only when the child is ready, or raises `EngineError` with the tail
of its output and leaves no process behind; `stop` and `kill` return only when the process is gone.
Every call blocks its thread; from asyncio use `asyncio.to_thread`.
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

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
POLL_SECONDS = 0.05
TAIL_BYTES = 4_000
PROJECT_ROOT = Path(__file__).resolve().parents[2]
SETTINGS_PREFIX = "METERING_"

_Start = Callable[[], "subprocess.Popen[bytes]"]


def clean_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process of ours is given: the machine's variables without any setting of ours, where
    our code is, and then these variables."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_PREFIX)
    }
    return {**inherited, "PYTHONPATH": str(PROJECT_ROOT), **(variables or {})}


class EngineError(RuntimeError):
    """An engine could not be started; the message says which, why, and where its output is."""


class ChildProcess:
    """A command with its output in a file. Not for use from two threads at once."""

    def __init__(
        self, name: str, output: Path, *, die_with_parent: bool, keeps_output: bool = False
    ) -> None:
        """`keeps_output`: what a former start wrote stays before what the next one writes."""
        self.name = name
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

    def wait_until(self, is_ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Return once `is_ready`; kill the process and raise if that does not happen."""
        deadline = time.monotonic() + timeout_seconds
        while not is_ready():
            if not self.is_running:
                raise self.failure(f"ended with exit code {self.exit_code}")
            if time.monotonic() > deadline:
                self.kill()
                raise self.failure(f"was not ready within {timeout_seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def stop(self, timeout_seconds: float) -> None:
        """Ask it to end cleanly; kill it when it has not within the time given."""
        if self._process is None:
            return
        self.send(signal.SIGTERM)
        # One that was frozen ends only when it runs.
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

    def failure(self, what: str, *logs: Path) -> EngineError:
        tails = "".join(_tail(path) for path in (self.output, *logs))
        return EngineError(f"{self.name} {what}{tails}")

    def _guard(self) -> list[str]:
        if not self.die_with_parent:
            return []
        return [sys.executable, "-I", "-S", str(DIE_WITH_PARENT), str(os.getpid())]


def _tail(path: Path) -> str:
    try:
        text = path.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
    return f"\n--- {path}\n{text}" if text else ""


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
