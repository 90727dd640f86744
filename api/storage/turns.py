"""Turns to write, bounded in number and in time, so that nobody waits without an end.

Writers of one organization go one after the other, since its row is locked anyhow; they wait here,
where waiting holds no connection. Turns are given in the order in which they were asked for, except
that a writer whose organization is busy is passed over: a long write of one organization does not
hold up the others.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Final

from api.errors import Refused, unavailable

WAITING_MAX: Final = 16
WAITING_OF_ONE_MAX: Final = 8
"""Each waits in a thread; there must be others left, for those who only read."""
WAIT_S: Final = 5.0
RETRY_S: Final = 2
EVERYBODY: Final = ""
"""Whose write concerns several organizations, or none yet."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ticket:
    whose: str


@dataclass
class Turns:
    """`at_once` writes at a time, of one organization one. Safe among threads."""

    at_once: int
    wait_s: float = WAIT_S
    waiting: list[_Ticket] = field(default_factory=list)
    _running: list[str] = field(default_factory=list)
    _changed: Condition = field(default_factory=Condition)

    @contextmanager
    def turn(self, whose: str, wait_s: float | None = None) -> Iterator[None]:
        """Waits for the turn, and has it until the block ends.

        Raises Refused (503) where too many wait already, or the turn does not come in time.
        """
        ticket = _Ticket(whose)
        with self._changed:
            self._wait(ticket, time.monotonic() + (self.wait_s if wait_s is None else wait_s))
            self._running.append(whose)
        try:
            yield
        finally:
            with self._changed:
                self._running.remove(whose)
                self._changed.notify_all()

    def _wait(self, ticket: _Ticket, deadline_s: float) -> None:
        of_one = sum(other.whose == ticket.whose for other in self.waiting)
        if len(self.waiting) >= WAITING_MAX or of_one >= WAITING_OF_ONE_MAX:
            raise busy()
        self.waiting.append(ticket)
        try:
            left_s = deadline_s - time.monotonic()
            if not self._changed.wait_for(lambda: self._next() is ticket, left_s):
                raise busy()
        finally:
            self.waiting.remove(ticket)
            self._changed.notify_all()

    def _next(self) -> _Ticket | None:
        if len(self._running) >= self.at_once:
            return None
        return next((one for one in self.waiting if self._may_run(one.whose)), None)

    def _may_run(self, whose: str) -> bool:
        return whose == EVERYBODY or whose not in self._running


def busy() -> Refused:
    return unavailable("busy", "Other changes are being written; this one was not begun.", RETRY_S)
