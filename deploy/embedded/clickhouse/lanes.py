"""What each kind of user has for itself: places for requests, turns for statements, threads.

Read-only users and the sink have a lane each, so that neither takes the other's place.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from deploy.embedded.clickhouse.errors import refusal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken on at a time; a body counts decompressed."""

    statements: int
    requests: int
    body_bytes: int
    transfer_seconds: float | None = None
    """How long a body may take to arrive, and a client to take each piece of its answer."""


WRITER_LIMITS: Final = Limits(statements=8, requests=64, body_bytes=256 * 1024 * 1024)
READER_LIMITS: Final = Limits(
    statements=4, requests=64, body_bytes=1024 * 1024, transfer_seconds=30.0
)


class Lane:
    """What one kind of users has for itself: threads, and turns for statements."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.limits = limits
        # One thread more than statements, for what a request needs before its turn.
        self._pool = ThreadPoolExecutor(limits.statements + 1, name)
        self._turns = asyncio.Semaphore(limits.statements)
        self._requests = 0

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request while it is held; one too many is refused at once."""
        if self._requests >= self.limits.requests:
            raise refusal(202, f"Too many requests: at most {self.limits.requests}.")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def turn(self) -> asyncio.Semaphore:
        """To be held while a statement runs, from its first block to its last."""
        return self._turns

    async def in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
