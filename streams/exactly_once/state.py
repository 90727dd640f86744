"""State of one partition as decisions see it: keys to mutable values, with write-back.

A bounded cache of decoded values over the local store. `put` and `delete` collect what the
transaction writes to the changelogs; nothing reaches the store before the commit.
"""

from collections.abc import Callable
from typing import Any, Final

from streams.exactly_once.local_store import LocalStore

CACHE_ENTRIES: Final = 50_000
"""Decoded values kept a partition; between transactions the older half goes when it is over."""

_MISSING: Final = object()

Key = tuple[str, ...]


class Codec:
    """How keys and values become bytes, and into which changelog a key goes."""

    def __init__(
        self,
        encode_key: Callable[[Key], bytes],
        encode_value: Callable[[Any], bytes],
        decode_value: Callable[[str, bytes], Any],
        changelog_of: Callable[[str], str],
    ) -> None:
        self.encode_key = encode_key
        self.encode_value = encode_value
        self.decode_value = decode_value
        self.changelog_of = changelog_of


class PartitionState:
    """Read-through, write-back. `get` returns the same object until it is evicted, so a caller
    that changes it must `put` it."""

    def __init__(self, store: LocalStore, codec: Codec) -> None:
        self._store = store
        self._codec = codec
        self._cache: dict[Key, Any] = {}
        self._dirty: dict[Key, Any] = {}

    def get(self, key: Key) -> Any:
        """The value, or None."""
        value = self._cache.get(key, _MISSING)
        if value is _MISSING:
            raw = self._store.get(self._codec.encode_key(key))
            value = None if raw is None else self._codec.decode_value(key[0], raw)
            self._cache[key] = value
        return value

    def put(self, key: Key, value: Any) -> None:
        self._cache[key] = value
        self._dirty[key] = value

    def delete(self, key: Key) -> None:
        self.put(key, None)

    @property
    def has_changes(self) -> bool:
        return bool(self._dirty)

    def changes(self) -> list[tuple[str, bytes, bytes | None]]:
        """Changelog topic, key and value (None deletes) of all that changed since `committed`."""
        codec = self._codec
        return [
            (
                codec.changelog_of(key[0]),
                codec.encode_key(key),
                None if value is None else codec.encode_value(value),
            )
            for key, value in self._dirty.items()
        ]

    def committed(self) -> None:
        """Forgets what was dirty and, when the cache is over its bound, its older half."""
        self._dirty.clear()
        if len(self._cache) > CACHE_ENTRIES:
            for key in list(self._cache)[: len(self._cache) - CACHE_ENTRIES // 2]:
                del self._cache[key]
