"""Keeps the table of billing cycles as the settings say, beside the storing of blocks."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog

from sinks.errors import RefusedError, UnavailableError
from sinks.inserts import Inserter
from warehouse.billing_cycles import ORGANIZATIONS_MAX, OUTDATED, TABLE, cycle_rows

PAUSE_S: Final = 5.0
"""Between two looks while facts keep coming."""
CHECK_INTERVAL_S: Final = 300.0

log = structlog.get_logger("sink")


class CycleWriter:
    """Writes the cycles of organizations whose settings changed. A statement of its own each time:
    what one look missed, or a crash left undone, the next one finds."""

    def __init__(self, inserter: Inserter) -> None:
        self._inserter = inserter
        self._facts_came = asyncio.Event()

    def facts_came(self) -> None:
        """To be told whenever facts were stored, so that new settings show within seconds."""
        self._facts_came.set()

    async def run(self) -> None:
        """Never returns. What fails is said, and tried again."""
        while True:
            self._facts_came.clear()
            try:
                await self.write(datetime.now(UTC))
            except (RefusedError, UnavailableError) as error:
                log.warning("billing cycles were not written", problem=str(error))
            await asyncio.sleep(PAUSE_S)
            try:
                async with asyncio.timeout(CHECK_INTERVAL_S):
                    await self._facts_came.wait()
            except TimeoutError:
                continue

    async def write(self, now: datetime) -> int:
        """Writes what is outdated; how many organizations that was. Raises as `Inserter` does."""
        written = 0
        while True:
            rows, problems = cycle_rows(await self._inserter.text(OUTDATED), now)
            for problem in problems:
                log.warning("billing cycles were not written", problem=problem)
            if rows:
                await self._inserter.insert(TABLE, rows)
                written += len(rows)
            if len(rows) < ORGANIZATIONS_MAX:
                return written
