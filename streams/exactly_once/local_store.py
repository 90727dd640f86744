"""The local store of one partition: state in RocksDB, seen ids beside it, positions with both.

It is a cache of the changelogs: whatever is wrong with it, throwing it away costs time, not
correctness. One write batch per commit, after the commit, carries state and positions together.
"""

import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import structlog
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from streams.exactly_once.errors import StoreError
from streams.exactly_once.seen import SeenIds

log = structlog.get_logger()

META_KEY: Final = b"\x00meta"
BLOCK_CACHE_BYTES: Final = 8 << 20
WRITE_BUFFER_BYTES: Final = 8 << 20


class Meta(msgspec.Struct):
    """What the store belongs to and how far it goes."""

    tag: str
    """Cluster and topic ids: a store of other topics must not be resumed from."""
    boot_id: str
    written_at_s: float
    clean: bool
    positions: dict[str, int]
    """The next offset to read of each changelog, by unprefixed topic."""


class LocalStore:
    """Opens, or discards and opens empty, the store of one partition.

    Usable if `positions` is not empty; else everything is to be read from the changelogs.
    """

    def __init__(self, directory: Path, *, tag: str, window_ms: int, max_age_s: float) -> None:
        self._directory = directory
        self._tag = tag
        self._window_ms = window_ms
        self._boot_id = boot_id()
        self._open()
        why = self._unusable(max_age_s)
        if why:
            log.warning("local store discarded", directory=str(directory), why=why)
            self.discard()

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(self._directory / "state"), _options())
        try:
            self.seen = SeenIds(self._directory / "seen", self._window_ms)
            raw = self._db.get(META_KEY)
            self._meta = msgspec.json.decode(raw, type=Meta) if raw else None
        except (ValueError, OSError) as error:
            log.warning("local store unreadable", directory=str(self._directory), error=str(error))
            self._db.close()
            shutil.rmtree(self._directory)
            self._open()

    def _unusable(self, max_age_s: float) -> str:
        meta = self._meta
        if meta is None:
            return "it has no positions" if len(self.seen) else ""
        if meta.tag != self._tag:
            return "it belongs to another cluster or other topics"
        if time.time() - meta.written_at_s > max_age_s:
            return "it is too old: deletions may be missing from the changelogs"
        if meta.boot_id != self._boot_id and not meta.clean:
            return "the machine restarted without closing it"
        return ""

    @property
    def positions(self) -> dict[str, int]:
        return dict(self._meta.positions) if self._meta else {}

    def discard(self) -> None:
        """Throws everything away; the changelogs have it all."""
        self._db.close()
        self.seen.close()
        shutil.rmtree(self._directory)
        self._open()

    def get(self, key: bytes) -> bytes | None:
        """Raises StoreError where the disk does not give it."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            # RocksDB's errors have no class of their own.
            raise StoreError(f"{self._directory} cannot be read: {error}") from error
        return value

    def scan(self, start: bytes, before: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from `start` up to, not including, `before`, in order."""
        for key, value in self._db.items(from_key=start):
            if key >= before:
                return
            yield key, value

    def write(self, items: Iterable[tuple[bytes, bytes | None]], positions: dict[str, int]) -> None:
        """State and positions in one write; `None` deletes."""
        batch = WriteBatch(raw_mode=True)
        for key, value in items:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        self._meta = Meta(
            self._tag, self._boot_id, time.time(), False, {**self.positions, **positions}
        )
        batch.put(META_KEY, msgspec.json.encode(self._meta))
        self._db.write(batch)

    def close(self) -> None:
        """A clean end: what is on disk survives a restart of the machine."""
        self.seen.close()
        if self._meta is not None:
            self._meta.clean = True
            self._db.put(META_KEY, msgspec.json.encode(self._meta))
            self._db.flush()
        self._db.close()

    def abandon(self) -> None:
        """Closes files without claiming that they are clean."""
        self.seen.close()
        self._db.close()


def boot_id() -> str:
    """Changes with every start of the machine; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(64)
    table = BlockBasedOptions()
    table.set_bloom_filter(10, False)
    table.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    options.set_block_based_table_factory(table)
    return options
