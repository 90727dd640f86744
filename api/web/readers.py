"""How many bodies are read at once of those who have shown no key: a bound that nobody can hold."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NewestReaders:
    """At most so many read at once, and where one more comes, the oldest is given up. So whoever
    sends slowly, from however many addresses, holds up nobody who does not."""

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._reading: dict[asyncio.Timeout, None] = {}

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Reads in the block. Raises TimeoutError where it was given up."""
        async with asyncio.timeout(None) as patience:
            if len(self._reading) >= self._at_most:
                oldest = next(iter(self._reading))
                del self._reading[oldest]
                oldest.reschedule(asyncio.get_running_loop().time())
            self._reading[patience] = None
            try:
                yield
            finally:
                self._reading.pop(patience, None)
