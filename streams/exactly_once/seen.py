"""Seen ids of one partition: a set of 16-byte ids with an 8-byte content each, on disk.

A few memory-mapped open-addressing tables ("segments", `segments.py`), probed a batch at a time
with numpy: 0.6 µs an event for look-up and insert together, where RocksDB took 4.8 µs (both
measured on the machine of the design's figures). Nothing is rebuilt at start. Pages belong to the
kernel's cache; the process itself holds a batch's arrays and the checksums only.

Why a kill cannot hurt: rows are written after the transaction committed and before the store's
positions move, so recovery inserts the same rows again, which changes nothing. A row torn by a
kill matches no id. Files are deleted only after the store's meta data have ceased to name them. A
machine that lost power may have lost pages: the store is then discarded (`local_store` compares
boot ids) and rebuilt from the topic.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from streams.exactly_once.segments import MAX_LOAD, Segment, SegmentMeta

FIRST_CAPACITY: Final = 1 << 16
REHASH_CAPACITY: Final = 1 << 22
"""Up to here a full segment is copied into one of twice the size (0.4 s at the most); beyond, a
larger one is begun beside it."""
LARGEST_CAPACITY: Final = 1 << 25
SEGMENTS_A_WINDOW: Final = 2
"""A segment is closed after half the window, so an id is kept for at most one and a half, and a
look-up probes three segments until one partition has millions of ids."""

Redo = dict[str, tuple[bytes, bytes]]
"""`Segment.redo` by the segment's name."""


class SeenIds:
    """All segments of one partition. The last one takes new ids.

    `metas` and `redo` are what `to_store` gave when the store was written last; files that they do
    not name are deleted. Raises StoreDamaged if the files are not those.
    """

    def __init__(
        self, directory: Path, window_ms: int, metas: Sequence[SegmentMeta] = (), redo: bytes = b""
    ) -> None:
        self._directory = directory
        self._window_ms = window_ms
        self._segments: list[Segment] = []
        self._retired: list[Segment] = []
        directory.mkdir(parents=True, exist_ok=True)
        known_files = {f"{meta.name}.seen" for meta in metas}
        for path in directory.iterdir():
            if path.name not in known_files:
                path.unlink()
        changes = msgspec.msgpack.decode(redo, type=Redo) if redo else {}
        for meta in metas:
            path = directory / f"{meta.name}.seen"
            self._segments.append(Segment.open(path, meta, changes.get(meta.name)))

    def __len__(self) -> int:
        return sum(segment.count for segment in self._segments)

    def lookup(self, identities: Sequence[bytes]) -> list[int]:
        """The content that each 16-byte identity was seen with, 0 where it was not seen.

        Raises StoreDamaged rather than answer from rows that do not add up."""
        if not identities:
            return []
        ids = np.frombuffer(b"".join(identities), np.uint64).reshape(-1, 2)
        contents = np.zeros(len(ids), np.uint64)
        for segment in self._segments:
            np.maximum(contents, segment.find(ids), out=contents)
        return contents.tolist()

    def insert_packed(self, packed: bytes, at_ms: int) -> None:
        """Adds packed rows (`pack`) that the broker appended at this time, and forgets what is too
        old by then. Only the broker's time is asked: the machine's clock may jump."""
        table = np.frombuffer(packed, np.uint64).reshape(-1, 3)
        if len(table):
            self._segment_for(len(table), at_ms).insert(table[:, :2], table[:, 2], at_ms)

    def to_store(self) -> tuple[list[SegmentMeta], bytes]:
        """What the store's next write has to hold, together with the positions."""
        changes = {segment.path.stem: segment.redo() for segment in self._segments}
        redo = {name: change for name, change in changes.items() if change is not None}
        metas = [segment.meta for segment in self._segments]
        return metas, msgspec.msgpack.encode(redo) if redo else b""

    def stored(self) -> None:
        """That write was made."""
        for segment in self._segments:
            segment.settle()
        for segment in self._retired:
            segment.close(flush=False)
            segment.path.unlink()
        self._retired = []

    def _segment_for(self, rows: int, at_ms: int) -> Segment:
        self._drop_expired(at_ms)
        if not self._segments:
            return self._add_segment(FIRST_CAPACITY, rows)
        last = self._segments[-1]
        if last.count and at_ms - last.oldest_ms > self._window_ms // SEGMENTS_A_WINDOW:
            # The next half of the window will probably bring as much as this one did.
            return self._add_segment(min(last.capacity, REHASH_CAPACITY), rows)
        if last.room_for(rows):
            return last
        larger = self._add_segment(min(last.capacity * 2, LARGEST_CAPACITY), rows)
        if last.capacity < REHASH_CAPACITY:
            table = last.occupied()
            larger.insert(table[:, :2], table[:, 2], last.oldest_ms)
            larger.newest_ms = last.newest_ms
            self._segments.remove(last)
            self._retired.append(last)
        return larger

    def _add_segment(self, capacity: int, rows: int) -> Segment:
        while rows > capacity * MAX_LOAD:
            capacity *= 2
        names = [int(one.path.stem) for one in (*self._segments, *self._retired)]
        number = max(names, default=-1) + 1
        segment = Segment.create(self._directory / f"{number:08d}.seen", capacity)
        self._segments.append(segment)
        return segment

    def _drop_expired(self, at_ms: int) -> None:
        while self._segments and 0 < self._segments[0].newest_ms < at_ms - self._window_ms:
            self._retired.append(self._segments.pop(0))

    def close(self, *, flush: bool = True) -> None:
        """Writes all pages to disk, if asked to."""
        for segment in (*self._segments, *self._retired):
            segment.close(flush=flush)
        self._segments, self._retired = [], []


def pack(rows: dict[bytes, int]) -> bytes:
    """Identities and contents as `metering-seen` carries them: 24 bytes each."""
    if not rows:
        return b""
    table = np.empty((len(rows), 3), np.uint64)
    table[:, :2] = np.frombuffer(b"".join(rows), np.uint64).reshape(-1, 2)
    table[:, 2] = np.fromiter(rows.values(), np.uint64, len(rows))
    return table.tobytes()
