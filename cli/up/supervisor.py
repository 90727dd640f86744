"""Keeps parts running: starts them in order, restarts what ends, stops all in reverse.

Each part is watched and restarted in a thread of its own: one that takes long to come back holds up
no other. Guarantees: nothing it started outlives it, however it ends (children ask the kernel to be
killed with their parent). It says that a part has ended and why, why it does not start again (once
for each cause), and that it is back; in between it tries again with growing pauses.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from types import FrameType
from typing import Final

from cli.up.parts import Part, Say
from deploy.embedded.child import EngineError

POLL_S: Final = 0.2
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""A part that has run for so long starts with the shortest pause again when it ends."""
SLOW_S: Final = 20.0
"""A first start that takes longer is spoken of."""
JOIN_S: Final = 0.1

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the process manager, and a terminal that was closed."""


class StopRequested(BaseException):
    """One of `STOP_SIGNALS` arrived; not an `Exception`, so that nobody takes it for a failure."""


@dataclass
class Keeper:
    """Keeps one part running. `wait` sleeps so long and says whether it is to end."""

    name: str
    part: Part
    say: Say
    wait: Callable[[float], bool]
    clock: Callable[[], float] = time.monotonic
    circumstances: Callable[[], str] = str
    """What a part that fails may be unable to write down itself, as a full disk; else empty."""
    started_s: float = field(init=False)
    pause_s: float = FIRST_PAUSE_S

    def __post_init__(self) -> None:
        self.started_s = self.clock()

    def keep(self) -> None:
        """Until `wait` says that it is to end."""
        while not self.wait(POLL_S):
            if not self.part.is_running:
                self._bring_back()

    def _bring_back(self) -> None:
        if self.clock() - self.started_s >= STEADY_S:
            self.pause_s = FIRST_PAUSE_S
        self.say(f"{self.name} ended ({_how(self.part)}); starting it again{self._beside()}")
        problems_said = set[str]()
        while not self.wait(self.pause_s):
            self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S)
            try:
                self.part.start()
            except EngineError as error:
                problem = f"{self.name} does not start: {error}{self._beside()}"
                if problem not in problems_said and not self.wait(0):
                    self.say(problem)
                    problems_said.add(problem)
                continue
            self.started_s = self.clock()
            self.say(f"{self.name} is back (pid {self.part.pid})")
            return

    def _beside(self) -> str:
        circumstances = self.circumstances()
        return f"; {circumstances}" if circumstances else ""


@dataclass
class _Entry:
    name: str
    part: Part
    thread: Thread | None = None


class Supervisor:
    """For one thread; `stop` may be called at any time, also after failures."""

    def __init__(self, say: Say, circumstances: Callable[[], str] = str) -> None:
        self._circumstances = circumstances
        self._say_alone = Lock()
        self._tell = say
        self._entries: list[_Entry] = []
        self._stopping = Event()
        self._failures: list[BaseException] = []

    def say(self, message: str) -> None:
        """As a whole, whichever thread says it."""
        with self._say_alone:
            self._tell(message)

    def start(self, name: str, part: Part) -> None:
        """Start a part and keep it running from now on. Raises `EngineError` when it does not."""
        self.adopt(name, part)
        with saying_that_it_is_slow(name, self.say):
            part.start()
        self.keep(part)

    def adopt(self, name: str, part: Part) -> None:
        """Stop at the end a part that the caller starts."""
        self._entries.append(_Entry(name, part))

    def keep(self, part: Part) -> None:
        """Restart an adopted part from now on whenever it ends."""
        (entry,) = [each for each in self._entries if each.part is part]
        keeper = Keeper(
            entry.name, part, self.say, self._stopping.wait, circumstances=self._circumstances
        )
        entry.thread = Thread(target=self._run, args=(keeper,), name=entry.name, daemon=True)
        entry.thread.start()

    def watch(self, seconds: float | None = None) -> None:
        """Return after so long (never without a limit); raise what a thread could not handle."""
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            if self._failures:
                raise self._failures[0]
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop in reverse order; what does not end within its time is killed."""
        self._stopping.set()
        while self._entries:
            entry = self._entries[-1]
            entry.part.stop()
            # The keeper may be about to start the part again; that start is stopped too.
            while entry.thread is not None and entry.thread.is_alive():
                entry.thread.join(JOIN_S)
                entry.part.stop()
            self._entries.pop()

    def _run(self, keeper: Keeper) -> None:
        try:
            keeper.keep()
        except BaseException as error:  # noqa: BLE001 - raised again by `watch`
            self._failures.append(error)


@contextmanager
def saying_that_it_is_slow(name: str, say: Say) -> Iterator[None]:
    """Within it, every `SLOW_S` a line, so that a person knows what is waited for."""
    is_up = Event()

    def remind() -> None:
        started_s = time.monotonic()
        while not is_up.wait(SLOW_S):
            say(f"{name} is still starting, after {time.monotonic() - started_s:.0f} s")

    thread = Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_up.set()
        thread.join()


def _how(part: Part) -> str:
    """How it ended, and why, where it can have said so: what was killed has not."""
    exit_code = part.exit_code
    if exit_code is None:
        return "unknown how"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    cause = part.why() if exit_code > 0 else ""
    return f"exit code {exit_code}{f': {cause}' if cause else ''}"


class stopping_on_signals:
    """Within it, `STOP_SIGNALS` raise `StopRequested` once; after the first they are ignored,
    so that an impatient second Ctrl-C does not leave half of it running."""

    def __enter__(self) -> None:
        self._former = {number: signal.signal(number, self._request) for number in STOP_SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        for number in self._former:
            signal.signal(number, signal.SIG_IGN)
        raise StopRequested
