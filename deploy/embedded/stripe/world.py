"""The stand-in's world: its objects, its clock, what is due when, and the events of what happens.

One thread uses it. Whatever changes it runs within `change()`, one transaction, so that a crash
leaves an object and its events together or neither.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from deploy.embedded.stripe.problems import missing
from deploy.embedded.stripe.shapes import API_VERSION, blank
from deploy.embedded.stripe.store import INDEXED, Store, Thing

LETTERS = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
ID_LETTERS = 24
CLOCK = "clock"


class World:
    def __init__(self, store: Store, base_url: str, real_time_s: Callable[[], float] = time.time):
        self.store = store
        self.base_url = base_url
        self._real_time_s = real_time_s
        self._moved_to_s: int | None = None
        self.request: Thing = {"id": None, "idempotency_key": None}
        self.on_event: Callable[[Thing], None] = lambda event: None
        self.on_change: Callable[[], None] = lambda: None

    # Time

    def now_s(self) -> int:
        """Seconds since 1970 by the clock that can be moved."""
        if self._moved_to_s is not None:
            return self._moved_to_s
        clock = self.store.setting(CLOCK, {})
        if (frozen_s := clock.get("frozen_at_s")) is not None:
            return int(frozen_s)
        return int(self._real_time_s() + clock.get("ahead_s", 0))

    def ahead_s(self) -> int:
        """How far a clock that runs was moved: shops still live in real time. 0 for one that
        stands, since whoever stops it moves the shop's clock as well."""
        return int(self.store.setting(CLOCK, {}).get("ahead_s", 0))

    @property
    def is_frozen(self) -> bool:
        return self.store.setting(CLOCK, {}).get("frozen_at_s") is not None

    def set_clock(self, instant_s: int, *, frozen: bool) -> None:
        ahead_s = instant_s - self._real_time_s()
        self.store.set(CLOCK, {"frozen_at_s": instant_s} if frozen else {"ahead_s": ahead_s})

    @contextmanager
    def at(self, instant_s: int) -> Iterator[None]:
        """What happens within happens at this instant."""
        former, self._moved_to_s = self._moved_to_s, instant_s
        try:
            yield
        finally:
            self._moved_to_s = former

    @contextmanager
    def change(self) -> Iterator[None]:
        with self.store.transaction():
            yield
        self.on_change()

    # Objects

    def new_id(self, prefix: str) -> str:
        return prefix + "".join(secrets.choice(LETTERS) for _ in range(ID_LETTERS))

    def add(self, kind: str, prefix: str, **values: Any) -> Thing:
        thing = blank(kind, id=self.new_id(prefix), **values)
        self.store.insert(thing)
        return thing

    def get(self, kind: str, identifier: str, param: str = "id", *, status: int = 400) -> Thing:
        """Raises `Problem` where there is none of that kind, or it was deleted."""
        thing = self.store.find(identifier)
        if thing is None or thing["object"] != kind or thing.get("deleted"):
            raise missing(kind.replace(".", " "), identifier, param, status=status)
        return thing

    def all(self, kind: str, **equal: Any) -> list[Thing]:
        """Oldest first, those whose fields have these values."""
        indexed = {name: equal[name] for name in INDEXED if isinstance(equal.get(name), str)}
        things = [
            thing
            for thing in self.store.newest_first(kind, **indexed)
            if all(thing.get(name) == value for name, value in equal.items())
        ]
        return things[::-1]

    def update(self, thing: Thing, event: str | None = None, **changes: Any) -> Thing:
        """Change fields, and say so with what they were before, where any is another now."""
        before = {name: thing.get(name) for name in changes}
        thing.update(changes)
        self.store.save(thing)
        previous = _differences(before, changes)
        if event and previous:
            self.emit(event, thing, previous)
        return thing

    # Events

    def emit(self, kind: str, thing: Thing, previous: Thing | None = None) -> Thing:
        data: Thing = {"object": thing}
        if previous is not None:
            data["previous_attributes"] = previous
        event = self.add(
            "event",
            "evt_",
            api_version=API_VERSION,
            created=self.now_s(),
            data=data,
            pending_webhooks=1 if self.store.setting("endpoint") else 0,
            request=dict(self.request),
            type=kind,
        )
        self.on_event(event)
        return event


def _differences(before: Thing, after: Thing) -> Thing:
    """Former values of what changed; of an object's own fields only those that did."""
    changed: Thing = {}
    for name, value in after.items():
        former = before.get(name)
        if former == value:
            continue
        if isinstance(former, dict) and isinstance(value, dict) and "object" not in former:
            changed[name] = {
                key: former.get(key)
                for key in {*former, *value}
                if former.get(key) != value.get(key)
            }
        else:
            changed[name] = former
    return changed
