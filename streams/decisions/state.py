"""What decisions read and how what they decided is written.

Keys and values are those of `schemas.codec.STATE_TYPES`. The keys have their one spelling here.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from schemas.codec import StateKey

Changes = dict[StateKey, Any]
"""New values by key, `None` for a key that goes. Applied in order by `apply_changes`."""


class State(Protocol):
    """One partition's state. `get` of a key returns the same object until it is put or deleted."""

    def get(self, key: StateKey) -> Any | None:
        """The value, or None where the key is unknown. Not to be mutated without a `put`."""

    def put(self, key: StateKey, value: Any) -> None:
        """Keeps the value and marks the key for the transaction's changelog."""

    def delete(self, key: StateKey) -> None:
        """Forgets the key; nothing happens where it is unknown."""


class MemoryState:
    """A state in a dict, for tests, benchmarks and audits."""

    def __init__(self, values: Mapping[StateKey, Any] | None = None) -> None:
        self.values: dict[StateKey, Any] = dict(values or {})

    def get(self, key: StateKey) -> Any | None:
        return self.values.get(key)

    def put(self, key: StateKey, value: Any) -> None:
        self.values[key] = value

    def delete(self, key: StateKey) -> None:
        self.values.pop(key, None)


class Draft:
    """The state as it would be after a decision: reads fall through, writes stay in `changes`."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.changes: Changes = {}

    def get(self, key: StateKey) -> Any | None:
        return self.changes[key] if key in self.changes else self._state.get(key)

    def put(self, key: StateKey, value: Any) -> None:
        self.changes[key] = value

    def delete(self, key: StateKey) -> None:
        self.changes[key] = None


def apply_changes(state: State, changes: Changes) -> None:
    """Writes what a decision wants changed."""
    for key, value in changes.items():
        if value is None:
            state.delete(key)
        else:
            state.put(key, value)


def organization_key(organization_id: str) -> StateKey:
    return ("organization", organization_id)


def member_key(organization_id: str, member_id: str) -> StateKey:
    return ("member", organization_id, member_id)


def alias_key(organization_id: str, alias_hash: str) -> StateKey:
    return ("alias", organization_id, alias_hash)


def website_key(organization_id: str, website_id: str) -> StateKey:
    return ("website", organization_id, website_id)


def group_key(organization_id: str, group_id: str) -> StateKey:
    return ("group", organization_id, group_id)


def price_key(organization_id: str, meter: str) -> StateKey:
    return ("price", organization_id, meter)


def pool_key(organization_id: str, pool_kind: str, pool_id: str) -> StateKey:
    return ("pool", organization_id, pool_kind, pool_id)


def grant_key(organization_id: str, grant_id: str) -> StateKey:
    return ("grant", organization_id, grant_id)


def fact_key(organization_id: str, topic: str, version: int) -> StateKey:
    return ("fact", organization_id, topic, str(version))


def expiry_key(at: datetime, organization_id: str, name: str) -> StateKey:
    """Sorts by time as text does, because the time is written with a fixed width in UTC.

    `name` is the grant's id, or `group-deleted:<group_id>` for a deletion that is yet to come.
    """
    return ("expiry", f"{at:%Y-%m-%dT%H:%M:%S.%fZ}", organization_id, name)
