"""Keeps parts running: starts them in order, restarts what ends, stops all in reverse.

Guarantees: nothing it started outlives it, however it ends (children ask the kernel to be killed
with their parent). It says once that a part has ended and once that it is back; in between it
tries again with growing pauses.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final

from cli.errors import one_line
from cli.up.parts import Part, Say
from deploy.embedded.child import EngineError

POLL_S: Final = 0.2
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""A part that has run for so long starts with the shortest pause again when it ends."""


STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the process manager, and a terminal that was closed."""


class StopRequested(BaseException):
    """One of `STOP_SIGNALS` arrived; not an `Exception`, so that nobody takes it for a failure."""


@dataclass(slots=True)
class Watched:
    """A part, and how its restarts go."""

    name: str
    part: Part
    last_words: Callable[[], str]
    started_s: float = 0.0
    next_try_s: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    is_down: bool = False


class Supervisor:
    """Not for use from several threads. `stop` may be called at any time, also after failures."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._watched: list[Watched] = []

    def start(self, name: str, part: Part, last_words: Callable[[], str] = lambda: "") -> None:
        """Start a part and watch it from now on. Raises `EngineError` when it does not start."""
        self.adopt(name, part, last_words)
        part.start()
        self._watched[-1].started_s = self._clock()

    def adopt(self, name: str, part: Part, last_words: Callable[[], str] = lambda: "") -> None:
        """Watch and stop a part that the caller starts."""
        self._watched.append(Watched(name, part, last_words, started_s=self._clock()))

    def watch(self, seconds: float | None = None) -> None:
        """Restart what ends, for so long (for ever without a limit)."""
        until = None if seconds is None else self._clock() + seconds
        while until is None or self._clock() < until:
            for watched in self._watched:
                if not watched.part.is_running:
                    self._restart(watched)
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop in reverse order; what does not end within its time is killed."""
        while self._watched:
            self._watched.pop().part.stop()

    def _restart(self, watched: Watched) -> None:
        now_s = self._clock()
        if not watched.is_down:
            watched.is_down = True
            if now_s - watched.started_s >= STEADY_S:
                watched.pause_s = FIRST_PAUSE_S
            watched.next_try_s = now_s + watched.pause_s
            self._say_ended(watched)
        if now_s < watched.next_try_s:
            return
        watched.pause_s = min(watched.pause_s * 2, LONGEST_PAUSE_S)
        try:
            watched.part.start()
        except EngineError as error:
            if watched.pause_s >= LONGEST_PAUSE_S:
                self._say(f"{watched.name} still does not start: {one_line(error)}")
            watched.next_try_s = self._clock() + watched.pause_s
            return
        watched.is_down = False
        watched.started_s = self._clock()
        self._say(f"{watched.name} is back (pid {watched.part.pid})")

    def _say_ended(self, watched: Watched) -> None:
        exit_code = watched.part.exit_code
        self._say(f"{watched.name} ended ({_how(exit_code)}); starting it again")
        # What was killed from outside has not said why.
        if exit_code is not None and exit_code > 0 and (words := watched.last_words()):
            self._say(f"  it said: {words}")


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return "unknown how"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


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
