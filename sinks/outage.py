"""Waiting for something that is down: said once, waited for with backoff, said once when back."""

import asyncio
import random
import time
from typing import Final

import structlog

from sinks import metrics

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 10.0

log = structlog.get_logger("sink")


class Outage:
    """Whether one dependency answers, and the waiting while it does not."""

    def __init__(self, dependency: str) -> None:
        self._dependency = dependency
        self._since_s: float | None = None
        self._wait_s = FIRST_WAIT_S
        self.problem: str | None = None
        metrics.DEPENDENCY_UP.labels(dependency).set(1)

    def begin(self, problem: str) -> None:
        """It does not answer. Repeated calls are silent."""
        self.problem = f"{self._dependency}: {problem}"
        if self._since_s is None:
            self._since_s = time.monotonic()
            metrics.DEPENDENCY_UP.labels(self._dependency).set(0)
            log.error("waiting", dependency=self._dependency, problem=problem)

    def end(self) -> None:
        """It answers. Cheap when it did before."""
        if self._since_s is not None:
            seconds = round(time.monotonic() - self._since_s, 1)
            log.info("answers again", dependency=self._dependency, after_seconds=seconds)
            metrics.DEPENDENCY_UP.labels(self._dependency).set(1)
        self._since_s, self._wait_s, self.problem = None, FIRST_WAIT_S, None

    async def wait(self) -> None:
        """Sleep before the next try: doubling up to 10 s, with jitter so that sinks spread out."""
        wait_s = self._wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)
        await asyncio.sleep(wait_s)
