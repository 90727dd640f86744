"""What the sink answers on `/health/live` and `/health/ready`."""

import time
from collections.abc import Callable
from typing import Final

from streams.outage import Outage

STUCK_S: Final = 300.0
"""Not alive when records wait, nothing is known to be down, and nothing moved for so long."""


class Status:
    """Updated by the sink's tasks, read by the health server. Never raises."""

    def __init__(self, *outages: Outage) -> None:
        self._outages = outages
        self._progress_s = time.monotonic()
        self.lag_records = 0
        self.missing_topics: list[str] = []
        self.has_joined: Callable[[], bool] = lambda: False

    def progress(self) -> None:
        """A block was stored, or nothing waits."""
        self._progress_s = time.monotonic()

    def ready(self) -> str | None:
        """Whether rows flow to ClickHouse now."""
        for outage in self._outages:
            if outage.problem:
                return outage.problem
        if self.missing_topics:
            return (
                f"topics do not exist: {', '.join(self.missing_topics)}: "
                "run `metering topics create`"
            )
        return None if self.has_joined() else "the consumer group has assigned no partitions yet"

    def live(self) -> str | None:
        """Whether a restart would not help: waiting for something that is down is being alive."""
        idle_s = time.monotonic() - self._progress_s
        if idle_s < STUCK_S or not self.lag_records:
            return None
        if any(outage.problem for outage in self._outages):
            return None
        return f"{self.lag_records} records wait and none was stored for {idle_s:.0f} s"
