"""`kill -9` between any two steps, without a process: an API that dies at a chosen step.

A step is a request to Stripe (before it leaves, and when its answer has come but nobody has read
it) and a transaction (before it commits, and when it has). At the chosen one `Killed` is raised,
which no handler of errors catches; from then on whatever that API still tries raises it too, so
that nothing of it reaches the database or Stripe. Its database is then opened by the next one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import stripe
from sqlalchemy.orm import Session

from api.storage.store import Store


class Killed(BaseException):
    """No `Exception`: what handles errors must not live on."""


@dataclass
class Life:
    """One process. `steps` are those since it was armed, to be read when something fails."""

    steps: list[str] = field(default_factory=list)
    is_dead: bool = False
    _left: int | None = None

    def arm(self, steps: int | None) -> None:
        """It dies at the step after so many; None: it lives."""
        self.steps, self._left = [], steps

    def check(self, name: str) -> None:
        if self.is_dead:
            raise Killed(f"dead before {name}")

    def step(self, name: str) -> None:
        self.check(name)
        self.steps.append(name)
        if self._left == 0:
            self.is_dead = True
            raise Killed(name)
        if self._left is not None:
            self._left -= 1


@dataclass
class Crashes:
    """Whoever opens a store or a client of Stripe belongs to the life that is being led; threads
    of a former one are still dead when the next has begun."""

    life: Life = field(default_factory=Life)
    count: int = 0
    _lives: dict[int, Life] = field(default_factory=dict)
    _kept: list[object] = field(default_factory=list)

    def next_life(self) -> None:
        self.count += self.life.is_dead
        self.life = Life()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Into every store and every client of Stripe, until the patch is undone."""
        patch.setattr(Store, "__init__", self._belonging(Store.__init__))
        patch.setattr(Store, "_session", self._session(Store._session))
        patch.setattr(Store, "read", self._read(Store.read))
        client = stripe.HTTPXClient
        patch.setattr(client, "__init__", self._belonging(client.__init__))
        patch.setattr(client, "request_async", self._request(client.request_async))
        for pause in ("INITIAL_DELAY", "MAX_DELAY"):
            patch.setattr(client, pause, 0.001)

    def _belonging(self, original: Callable[..., None]) -> Callable[..., None]:
        def init(made: object, *given: Any, **further: Any) -> None:
            original(made, *given, **further)
            self._lives[id(made)] = self.life
            self._kept.append(made)

        return init

    def _session(self, original: Any) -> Any:
        @contextmanager
        def session(store: Store) -> Iterator[Session]:
            life = self._lives[id(store)]
            with original(store) as opened:
                yield opened
                opened.flush()
                life.step("commit")
            life.step("committed")

        return session

    def _read(self, original: Any) -> Any:
        @contextmanager
        def read(store: Store) -> Iterator[Session]:
            self._lives[id(store)].check("a read")
            with original(store) as opened:
                yield opened

        return read

    def _request(self, original: Any) -> Any:
        async def request_async(
            client: stripe.HTTPXClient, method: str, url: str, *rest: Any, **further: Any
        ) -> Any:
            life = self._lives[id(client)]
            path = url.partition("/v1/")[2].partition("?")[0]
            life.step(f"{method} {path}")
            answer = await original(client, method, url, *rest, **further)
            life.step(f"{method} {path} answered")
            return answer

        return request_async
