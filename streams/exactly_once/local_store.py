"""The local store of one partition: state in RocksDB, seen ids beside it, positions with both.

It is a cache of the changelogs: whatever is wrong with it, throwing it away costs time, not
correctness. So whatever is on disk is checked, and what does not fit is discarded, with one line of
log. One write batch per commit, after the commit, carries state, positions and what the files of
seen ids must be together.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, ReadOptions, WriteBatch

from streams.exactly_once.errors import StoreDamaged, StoreFailed, of_opening, of_rocksdb
from streams.exactly_once.seen import SeenIds
from streams.exactly_once.segments import SegmentMeta

log = structlog.get_logger()

META_KEY: Final = b"\x00meta"
REDO_KEY: Final = b"\x00seen"
"""What the last write changed in the checksums of seen ids (`SeenIds.to_store`)."""
Result = TypeVar("Result")

FIRST_STATE_KEY: Final = b"\x01"
LAST_STATE_KEY: Final = b"\xff"
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
    seen: list[SegmentMeta]
    """Which files of seen ids there are, and what they hold."""


class LocalStore:
    """Opens, or discards and opens empty, the store of one partition.

    Usable if `positions` is not empty; else everything is to be read from the changelogs. Damage
    that shows later is StoreDamaged, of any method: the store is then to be discarded.
    """

    def __init__(self, directory: Path, *, tag: str, window_ms: int, max_age_s: float) -> None:
        self._directory = directory
        self._tag = tag
        self._window_ms = window_ms
        self._boot_id = boot_id()
        self._db: Any = None
        self._meta: Meta | None = None
        try:
            self._open()
            why = self._unusable(max_age_s)
        except StoreDamaged as damage:
            why = str(damage)
        if why:
            self.discard(why)

    def _open(self) -> None:
        seen = self._directory / "seen"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._db = self._of_rocksdb(lambda: Rdict(str(self._directory / "state"), _options()))
            self._meta = self._read_meta()
            if self._meta is None and seen.is_dir() and any(seen.iterdir()):
                raise StoreDamaged("it has seen ids, but no positions")
            metas = self._meta.seen if self._meta else []
            self.seen = SeenIds(seen, self._window_ms, metas, self.get(REDO_KEY) or b"")
        except OSError as error:
            raise of_opening(error, self._directory) from error

    def _read_meta(self) -> Meta | None:
        raw = self.get(META_KEY)
        try:
            return msgspec.json.decode(raw, type=Meta) if raw else None
        except msgspec.DecodeError:
            raise StoreDamaged("another version wrote it") from None

    def _unusable(self, max_age_s: float) -> str:
        meta = self._meta
        if meta is None:
            return ""
        if meta.tag != self._tag:
            return "it belongs to another cluster or other topics"
        if abs(time.time() - meta.written_at_s) > max_age_s:
            return "it is too old: deletions may be missing from the changelogs"
        if meta.boot_id != self._boot_id and not meta.clean:
            return "the machine restarted without closing it"
        return ""

    @property
    def positions(self) -> dict[str, int]:
        return dict(self._meta.positions) if self._meta else {}

    def has_state(self) -> bool:
        """Whether it holds anything but meta data and seen ids."""
        return bool(self._of_rocksdb(lambda: self._scan(FIRST_STATE_KEY, LAST_STATE_KEY, limit=1)))

    def discard(self, why: str) -> None:
        """Throws everything away, says so and begins anew; the changelogs have it all."""
        self.destroy(why)
        try:
            self._open()
        except StoreDamaged as damage:
            # Even an empty store fails, so the disk is at fault and not what was written.
            raise StoreFailed(str(damage)) from None

    def destroy(self, why: str) -> None:
        """Closes it, deletes its files and says so."""
        log.warning("local store discarded", directory=str(self._directory), why=why)
        self.abandon()
        try:
            if self._directory.is_dir():
                shutil.rmtree(self._directory)
            else:
                self._directory.unlink()
        except OSError as error:
            raise StoreFailed.of(error, self._directory) from error

    def get(self, key: bytes) -> bytes | None:
        """Raises StoreError where the disk does not give it."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:  # noqa: BLE001 - RocksDB has one type for everything
            raise of_rocksdb(error, self._directory) from None
        return value

    def scan(self, start: bytes, before: bytes) -> list[tuple[bytes, bytes]]:
        """Keys from `start` up to, not including, `before`, in order."""
        return self._of_rocksdb(lambda: self._scan(start, before))

    def _scan(
        self, start: bytes, before: bytes, limit: float = math.inf
    ) -> list[tuple[bytes, bytes]]:
        options = ReadOptions()
        options.set_iterate_upper_bound(before)
        items: list[tuple[bytes, bytes]] = []
        cursor = self._db.iter(options)
        try:
            cursor.seek(start)
            while cursor.valid() and len(items) < limit:
                items.append((cursor.key(), cursor.value()))
                cursor.next()
            # Without this check a damaged block would look like the end of the store.
            cursor.status()
        finally:
            # A cursor keeps the database's lock, also in a traceback.
            del cursor
        return items

    def write(self, items: Iterable[tuple[bytes, bytes | None]], positions: dict[str, int]) -> None:
        """State, positions and what the seen ids are by now, in one write; `None` deletes."""
        batch = WriteBatch(raw_mode=True)
        for key, value in items:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        segments, redo = self.seen.to_store()
        meta = Meta(
            self._tag,
            self._boot_id,
            time.time(),
            False,
            {**self.positions, **positions},
            segments,
        )
        batch.put(META_KEY, msgspec.json.encode(meta))
        if redo:
            batch.put(REDO_KEY, redo)
        self._of_rocksdb(lambda: self._db.write(batch))
        self._meta = meta
        self.seen.stored()

    def close(self) -> None:
        """A clean end: what is on disk survives a restart of the machine. Where that cannot be
        had, it is as after a kill."""
        self.seen.close()
        try:
            if self._meta is not None:
                self._meta.clean = True
                batch = WriteBatch(raw_mode=True)
                batch.put(META_KEY, msgspec.json.encode(self._meta))
                # The files have it. Left here, it would mend a copy that is a transaction older.
                batch.delete(REDO_KEY)
                self._of_rocksdb(lambda: self._db.write(batch))
                self._of_rocksdb(self._db.flush)
        except (StoreDamaged, StoreFailed) as error:
            log.warning("local store not closed", directory=str(self._directory), why=str(error))
        self.abandon()

    def abandon(self) -> None:
        """Closes files without claiming that they are clean."""
        if getattr(self, "seen", None) is not None:
            self.seen.close(flush=False)
        database, self._db = self._db, None
        try:
            if database is not None:
                database.close()
        except Exception as error:  # noqa: BLE001 - it is done with, whatever is wrong with it
            log.debug("RocksDB did not close", error=str(error))

    def _of_rocksdb(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - RocksDB has one type for everything
            raise of_rocksdb(error, self._directory) from None


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
