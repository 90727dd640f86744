"""Waiting for something that is down: said once, waited for with backoff, said once when back."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

import structlog

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 5.0

log = structlog.get_logger()


class Outage:
    """Whether one dependency answers, and the waiting while it does not."""

    def __init__(self, dependency: str, show: Callable[[float], None] = lambda _: None) -> None:
        """`show` is given 1 while it answers and 0 while it does not: a gauge's `set`."""
        self.dependency = dependency
        self._show = show
        self._since_s: float | None = None
        self._wait_s = FIRST_WAIT_S
        self.problem: str | None = None
        show(1)

    def begin(self, problem: str) -> None:
        """It does not answer. Repeated calls are silent."""
        self.problem = f"{self.dependency}: {problem}"
        if self._since_s is None:
            self._since_s = time.monotonic()
            self._show(0)
            log.error("waiting", dependency=self.dependency, problem=problem)

    def end(self) -> None:
        """It answers. Cheap when it did before."""
        if self._since_s is not None:
            seconds = round(time.monotonic() - self._since_s, 1)
            log.info("answers again", dependency=self.dependency, after_seconds=seconds)
            self._show(1)
        self._since_s, self._wait_s, self.problem = None, FIRST_WAIT_S, None

    async def wait(self) -> None:
        """Sleep before the next try: doubling up to `LONGEST_WAIT_S`, with jitter so that those
        who wait for the same server spread out."""
        wait_s = self._wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)
        await asyncio.sleep(wait_s)
