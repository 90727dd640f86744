"""One file of seen ids: an open-addressing table on disk that knows when it was damaged.

    header | capacity rows of (id high, id low, content) | a checksum for each block of rows

The table is mapped into memory and written in place, so what is read may be something else than
what was written: pages that a failing disk lost, an older copy, flipped bytes. A *block* of 128
rows is therefore added up again when it is read for the first time since the file was opened, and
only then is an id in it trusted. What the blocks' checksums add up to is kept in the store's meta
data (`SegmentMeta`), so that an older file does not pass for this one.

A checksum is a sum over rows, so adding a row changes it without reading the block. The file's
checksums change only when the store's meta data have been written (`settle`); until then what is to
change is in memory, and in the store itself (`redo`). Whenever the process is killed, they are
those of the meta data then, or are brought there by `redo`. Rows may be further: those of a
transaction whose positions were not written. Recovery inserts them again and counts them then
(`_count_again`).
"""

import os
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from streams.exactly_once.errors import StoreDamaged, StoreFailed

ROW_BYTES: Final = 24
HEADER: Final = Struct("<8sQ")  # magic, capacity
HEADER_BYTES: Final = 64
MAGIC: Final = b"METSEEN2"
MAX_LOAD: Final = 0.6
PROBED: Final = np.arange(8)
"""Rows that a look-up reads at once: three cache lines, and rarely a second time."""
BLOCK_SHIFT: Final = 7
BLOCK_ROWS: Final = 1 << BLOCK_SHIFT
CHECKED_AT_ONCE: Final = 2048
"""Blocks whose rows are copied together when many are checked: 6 MiB."""
_HIGH, _LOW, _CONTENT, _MIX = (
    np.uint64(odd)
    for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
)
_HALF: Final = np.uint64(32)

Words = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]


class SegmentMeta(msgspec.Struct, frozen=True):
    """What a store's meta data say about one segment."""

    name: str
    capacity: int
    count: int
    """Rows that hold an id."""
    oldest_ms: int
    newest_ms: int
    checksum: int
    """The sum of its blocks' checksums, modulo 2^64."""


class Segment:
    """One table; content 0 is an empty row. To be made by `create` or `open`."""

    def __init__(self, path: Path, meta: SegmentMeta, *, is_new: bool) -> None:
        self.path = path
        self.capacity = meta.capacity
        self.count = meta.count
        self.oldest_ms, self.newest_ms = meta.oldest_ms, meta.newest_ms
        blocks = meta.capacity >> BLOCK_SHIFT
        words = np.memmap(path, dtype=np.uint64, mode="r+")
        rows_end = HEADER_BYTES // 8 + meta.capacity * 3
        self._map = words
        # Plain views: numpy's memmap class costs microseconds at every index.
        plain: Words = words.view(np.ndarray)
        self._rows = plain[HEADER_BYTES // 8 : rows_end].reshape(-1, 3)
        self._blocks = self._rows.reshape(blocks, BLOCK_ROWS, 3)
        self._file_checksums = plain[rows_end:]
        self._checksums = self._file_checksums.copy()
        self._is_checked = np.full(blocks, is_new)
        self._unchecked = 0 if is_new else blocks
        self._is_new = is_new
        """Not in any meta data yet."""
        self._changed: list[Positions] = []
        self._mask = np.int64(meta.capacity - 1)

    @classmethod
    def create(cls, path: Path, capacity: int) -> "Segment":
        """An empty one. Raises StoreFailed where the disk has no room for all of it."""
        unfinished = path.with_suffix(".new")
        with unfinished.open("wb") as file:
            file.write(HEADER.pack(MAGIC, capacity).ljust(HEADER_BYTES, b"\0"))
            file.flush()
            _reserve(file.fileno(), path, capacity)
        unfinished.rename(path)
        return cls(path, SegmentMeta(path.stem, capacity, 0, 0, 0, 0), is_new=True)

    @classmethod
    def open(cls, path: Path, meta: SegmentMeta, redo: tuple[bytes, bytes] | None) -> "Segment":
        """The one that these meta data describe. Raises StoreDamaged if it is not."""
        try:
            with path.open("r+b") as file:
                header = file.read(HEADER.size)
                size = os.fstat(file.fileno()).st_size
                if header != HEADER.pack(MAGIC, meta.capacity) or size != _bytes(meta.capacity):
                    raise StoreDamaged(f"{path} is not the segment of seen ids that it was")
                # A copied file may have holes, for which a full disk would have no room later.
                _reserve(file.fileno(), path, meta.capacity)
        except FileNotFoundError:
            raise StoreDamaged(f"{path}, a segment of seen ids, is missing") from None
        segment = cls(path, meta, is_new=False)
        if redo is not None:
            segment._apply(redo)
        if segment.meta.checksum != meta.checksum:
            raise StoreDamaged(f"{path}, a segment of seen ids, is older or newer than its store")
        return segment

    @property
    def meta(self) -> SegmentMeta:
        """As of now, whatever of it is stored."""
        return SegmentMeta(
            self.path.stem,
            self.capacity,
            self.count,
            self.oldest_ms,
            self.newest_ms,
            int(self._checksums.sum()),
        )

    def room_for(self, rows: int) -> bool:
        return bool(self.count + rows <= self.capacity * MAX_LOAD)

    def occupied(self) -> Words:
        """A copy of all rows that hold an id. Raises StoreDamaged."""
        self._check(np.arange(len(self._blocks)))
        rows: Words = np.asarray(self._rows[self._rows[:, 2] != 0])
        return rows

    def find(self, ids: Words) -> Words:
        """The content of each id, 0 where it is not here. Raises StoreDamaged."""
        position = ids[:, 0].view(np.int64) & self._mask
        contents: Words = np.zeros(len(ids), np.uint64)
        todo = np.arange(len(ids))
        for _ in range(0, self.capacity, len(PROBED)):
            if self._unchecked:
                self._check(position >> BLOCK_SHIFT)
                self._check(((position + PROBED[-1]) & self._mask) >> BLOCK_SHIFT)
            rows = self._rows.take((position[:, None] + PROBED) & self._mask, axis=0)
            free = rows[:, :, 2] == 0
            same = (rows[:, :, 0] == ids[:, None, 0]) & (rows[:, :, 1] == ids[:, None, 1]) & ~free
            which, place = same.nonzero()
            contents[todo[which]] = rows[which, place, 2]
            # Eight truth values are one word. An id is never behind a free row.
            ended = (same | free).view(np.uint64)[:, 0]
            go_on = np.flatnonzero(ended == 0)
            if not len(go_on):
                return contents
            todo, ids = todo[go_on], ids[go_on]
            position = (position[go_on] + len(PROBED)) & self._mask
        raise StoreDamaged(f"{self.path}, a segment of seen ids, has no free row")

    def insert(self, ids: Words, contents: Words, at_ms: int) -> None:
        """Adds rows of ids that differ from each other; one that is here already stays as it is."""
        position = ids[:, 0].view(np.int64) & self._mask
        todo = np.arange(len(ids))
        added, added_at, present_at = [], [], []
        for _ in range(self.capacity):
            rows = self._rows[position]
            free = rows[:, 2] == 0
            same = (rows[:, 0] == ids[todo, 0]) & (rows[:, 1] == ids[todo, 1]) & ~free
            if same.any():
                present_at.append(position[same])
            take = np.flatnonzero(free)
            target, source = position[take], todo[take]
            # The content makes a row count: written last, a torn row stays free.
            self._rows[target, 0] = ids[source, 0]
            self._rows[target, 1] = ids[source, 1]
            self._rows[target, 2] = contents[source]
            # Two ids of this batch can meet in one free row: the last writer has it, the other
            # goes on to the next row.
            lost = (self._rows[target, 0] != ids[source, 0]) | (
                self._rows[target, 1] != ids[source, 1]
            )
            added.append(source[~lost])
            added_at.append(target[~lost])
            again = ~(same | free)
            again[take[lost]] = True
            todo, position = todo[again], (position[again] + 1) & self._mask
            if not len(todo):
                break
        else:
            raise StoreDamaged(f"{self.path}, a segment of seen ids, has no free row")
        self.oldest_ms = min(self.oldest_ms or at_ms, at_ms)
        self.newest_ms = max(self.newest_ms, at_ms)
        new = np.concatenate(added)
        self._count(np.concatenate(added_at), ids[new], contents[new])
        if present_at:
            self._count_again(np.concatenate(present_at))

    def redo(self) -> tuple[bytes, bytes] | None:
        """What the store is to keep until `settle`: blocks, and the checksums they are to have."""
        if self._is_new:
            self._file_checksums[:] = self._checksums
            return None
        if not self._changed:
            return None
        blocks = np.concatenate(self._changed)
        if len(blocks) > len(self._checksums):
            blocks = np.arange(len(self._checksums))
        return blocks.astype(np.uint32).tobytes(), self._checksums[blocks].tobytes()

    def settle(self) -> None:
        """The store's meta data have what `meta` and `redo` said."""
        for blocks in self._changed:
            self._file_checksums[blocks] = self._checksums[blocks]
        self._changed = []
        self._is_new = False

    def close(self, *, flush: bool) -> None:
        if flush:
            self._map.flush()
        del self._rows, self._blocks, self._file_checksums, self._map

    def _apply(self, redo: tuple[bytes, bytes]) -> None:
        blocks = np.frombuffer(redo[0], np.uint32)
        if len(blocks) and blocks.max() >= len(self._checksums):
            raise StoreDamaged(f"{self.path}: its store speaks of blocks that it has not")
        self._checksums[blocks] = np.frombuffer(redo[1], np.uint64)
        self._file_checksums[blocks] = self._checksums[blocks]

    def _count(self, at: Positions, ids: Words, contents: Words) -> None:
        blocks = at >> BLOCK_SHIFT
        np.add.at(self._checksums, blocks, _mixed(ids[:, 0], ids[:, 1], contents))
        self._changed.append(blocks)
        self.count += len(at)

    def _count_again(self, at: Positions) -> None:
        """Rows that are there although recovery inserts them. In a block that adds up they were
        counted; else they were left by a process that was killed before it could count them."""
        blocks = np.unique(at >> BLOCK_SHIFT)
        unsettled = blocks[self._actual(blocks) != self._checksums[blocks]]
        left = at[np.isin(at >> BLOCK_SHIFT, unsettled)]
        rows = self._rows[left]
        self._count(left, rows[:, :2], rows[:, 2])

    def _check(self, blocks: Positions) -> None:
        """Those that were not read since the file was opened. Raises StoreDamaged."""
        unchecked = blocks[~self._is_checked[blocks]]
        if not len(unchecked):
            return
        unchecked = np.unique(unchecked)
        wrong = unchecked[self._actual(unchecked) != self._checksums[unchecked]]
        if len(wrong):
            first = int(wrong[0])
            raise StoreDamaged(f"{self.path}, a segment of seen ids, is damaged in block {first}")
        self._is_checked[unchecked] = True
        self._unchecked -= len(unchecked)

    def _actual(self, blocks: Positions) -> Words:
        sums: Words = np.empty(len(blocks), np.uint64)
        for begin in range(0, len(blocks), CHECKED_AT_ONCE):
            some = slice(begin, begin + CHECKED_AT_ONCE)
            rows = self._blocks[blocks[some]]
            sums[some] = _mixed(rows[..., 0], rows[..., 1], rows[..., 2]).sum(axis=-1)
        return sums


def _mixed(high: Words, low: Words, content: Words) -> Words:
    """A row's share of its block's checksum; 0 of a free row. Whatever else becomes of one row,
    its share becomes another: multiplying by odd numbers and folding lose nothing."""
    mixed: Words = high * _HIGH
    mixed += low * _LOW
    mixed += content * _CONTENT
    mixed ^= mixed >> _HALF
    mixed *= _MIX
    mixed *= content != 0
    return mixed


def _bytes(capacity: int) -> int:
    return HEADER_BYTES + capacity * ROW_BYTES + (capacity >> BLOCK_SHIFT) * 8


def _reserve(descriptor: int, path: Path, capacity: int) -> None:
    """Room on the disk for the whole file: written through a mapping, a page without room would
    end the process by SIGBUS, without a word."""
    try:
        os.posix_fallocate(descriptor, 0, _bytes(capacity))
    except OSError as error:
        raise StoreFailed.of(error, path) from error
