"""Seen ids against a dict: whatever is inserted, in whatever batches, across kills and damage."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.exactly_once import seen
from streams.exactly_once.errors import StoreDamaged
from streams.exactly_once.seen import SeenIds, pack
from streams.exactly_once.segments import HEADER_BYTES, ROW_BYTES, SegmentMeta

WINDOW_MS = 1_000_000
IDS = st.one_of(
    st.binary(min_size=16, max_size=16),
    # Ids that start in the same row of a table, so that probing is exercised.
    st.binary(min_size=8, max_size=8).map(lambda low: bytes(8) + low),
)
BATCHES = st.lists(st.dictionaries(IDS, st.integers(1, 2**64 - 1), max_size=60), max_size=8)
PAGE_BYTES = 4096


class Kept:
    """Seen ids with what a store keeps of them; `kill` forgets all that was not stored."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.metas: list[SegmentMeta] = []
        self.redo = b""
        self.ids = SeenIds(directory, WINDOW_MS)

    def insert(self, batch: dict[bytes, int], at_ms: int = 1000) -> None:
        self.ids.insert_packed(pack(batch), at_ms)

    def store(self, *, settle: bool = True) -> None:
        self.metas, redo = self.ids.to_store()
        self.redo = redo or self.redo
        if settle:
            self.ids.stored()

    def kill(self) -> None:
        """Its files stay as they are."""
        self.ids.close(flush=False)
        self.ids = SeenIds(self.directory, WINDOW_MS, self.metas, self.redo)

    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())


def some_ids(rng: random.Random, count: int) -> dict[bytes, int]:
    return {rng.randbytes(16): rng.randrange(1, 2**64) for _ in range(count)}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of few rows, so that a few hundred ids need many."""
    monkeypatch.setattr(seen, "FIRST_CAPACITY", 128)
    monkeypatch.setattr(seen, "REHASH_CAPACITY", 512)
    monkeypatch.setattr(seen, "LARGEST_CAPACITY", 2048)


@given(
    batches=BATCHES,
    unseen=st.lists(IDS, max_size=20),
    kills=st.lists(st.integers(0, 3), min_size=8),
)
@settings(max_examples=80, deadline=None)
def test_finds_exactly_what_was_inserted(
    batches: list[dict[bytes, int]],
    unseen: list[bytes],
    kills: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kept = Kept(tmp_path_factory.mktemp("seen"))
    model: dict[bytes, int] = {}
    for number, (batch, kill) in enumerate(zip(batches, kills, strict=False)):
        new = {identity: content for identity, content in batch.items() if identity not in model}
        if kill == 1:  # in the middle of the insert: some rows are there that nobody counted
            kept.insert(dict(list(new.items())[: len(new) // 2]), 1000 + number)
            kept.kill()
        kept.insert(new, 1000 + number)
        if kill == 2:  # before the store was written: recovery inserts the same again
            kept.kill()
            kept.insert(new, 1000 + number)
        kept.store(settle=kill != 3)
        model |= new
        if kill == 3:  # between the store's write and the file's
            kept.kill()
    ids = [*model, *unseen]
    kept.store()
    kept.kill()
    assert kept.ids.lookup(ids) == [model.get(identity, 0) for identity in ids]
    assert len(kept.ids) == len(model)


def test_grows_beyond_many_segments(tmp_path: Path, small: None) -> None:
    rng = random.Random(5)
    kept = Kept(tmp_path)
    model: dict[bytes, int] = {}
    unstored: list[dict[bytes, int]] = []
    for number in range(120):
        batch = some_ids(rng, rng.randrange(1, 60))
        kept.insert(batch)
        unstored.append(batch)
        if number % 7 == 3:
            kept.kill()
            for again in unstored:
                kept.insert(again)
        if number % 3:
            kept.store()
            unstored = []
        model |= batch
    assert kept.ids.lookup(list(model)) == list(model.values())
    assert len(kept.ids) == len(model)
    kept.store()
    assert len(kept.files()) == len(kept.metas) > 2


def test_forgets_after_the_window_and_not_before(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    old, young = bytes([1]) * 16, bytes([2]) * 16
    kept.insert({old: 7}, 1000)
    kept.insert({young: 8}, 1000 + WINDOW_MS // 2 + 1)
    kept.insert({bytes(16): 9}, 1000 + WINDOW_MS - 1)
    assert kept.ids.lookup([old, young]) == [7, 8]
    kept.store()
    kept.insert({bytes([3]) * 16: 9}, 1000 + WINDOW_MS + 1)
    assert kept.ids.lookup([old, young]) == [0, 8]
    # Until the store is written, it names the file of what was forgotten.
    kept.kill()
    assert kept.ids.lookup([old, young]) == [7, 8]


def test_a_row_torn_by_a_kill_neither_matches_nor_hides_others(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.insert({bytes([1]) * 16: 4})
    kept.store()
    zeros = bytes(16)
    with kept.files()[0].open("r+b") as file:
        # The row of the id, all but its content: that is what makes a row count.
        file.seek(HEADER_BYTES)
        file.write(b"\0" * 8 + b"\7" * 8)
    kept.kill()
    assert kept.ids.lookup([zeros, bytes([1]) * 16]) == [0, 4]
    kept.insert({zeros: 5})
    kept.store()
    kept.kill()
    assert kept.ids.lookup([zeros, bytes([1]) * 16]) == [5, 4]
    assert len(kept.ids) == 2


def test_a_killed_insert_is_counted_when_it_is_made_again(tmp_path: Path, small: None) -> None:
    """Rows that nobody counts would fill the table, and a full one is searched for ever."""
    rng = random.Random(9)
    kept = Kept(tmp_path)
    kept.insert(some_ids(rng, 60))
    kept.store()
    for _ in range(40):
        batch = some_ids(rng, 15)
        kept.insert(batch)
        kept.kill()
        kept.insert(batch)
        kept.store()
    assert len(kept.ids) == 60 + 40 * 15
    assert sum(meta.count for meta in kept.metas) == 660
    assert all(meta.count <= meta.capacity * 0.6 for meta in kept.metas)


def stored(directory: Path) -> tuple[Kept, dict[bytes, int]]:
    """A table of 2,000 ids, of which 1,000 came after a kill."""
    rng = random.Random(3)
    kept = Kept(directory)
    model: dict[bytes, int] = {}
    for _ in range(2):
        batch = some_ids(rng, 1_000)
        kept.insert(batch)
        kept.store()
        kept.kill()
        model |= batch
    return kept, model


def answer(kept: Kept, model: dict[bytes, int]) -> Any:
    """What a reopened set says of all ids, and of others; or that it is damaged."""
    rng = random.Random(4)
    others = [rng.randbytes(16) for _ in range(1_000)]
    try:
        kept.kill()
        return kept.ids.lookup([*model, *others]) == [*model.values(), *([0] * len(others))]
    except StoreDamaged:
        return "damaged"


def test_undamaged_it_answers(tmp_path: Path) -> None:
    assert answer(*stored(tmp_path)) is True


def test_flipped_bytes_are_found_before_an_id_is_trusted(tmp_path: Path) -> None:
    kept, model = stored(tmp_path)
    (path,) = kept.files()
    whole = bytearray(path.read_bytes())
    rows = np.frombuffer(whole, np.uint64)[HEADER_BYTES // 8 :][: kept.metas[0].capacity * 3]
    (occupied,) = rows.reshape(-1, 3)[:, 2].nonzero()
    rng = random.Random(8)
    in_rows = [
        HEADER_BYTES + int(row) * ROW_BYTES + rng.randrange(ROW_BYTES)
        for row in rng.sample(list(occupied), 60)
    ]
    for at in [*in_rows, *(rng.randrange(len(whole)) for _ in range(60)), 0, 8, len(whole) - 1]:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([whole[at] ^ 0xFF]))
        said = answer(kept, model)
        # A flip among rows that are free may mean nothing; it must not be taken for an answer.
        assert said == "damaged" or (said is True and at not in in_rows), at
        path.write_bytes(whole)


def test_zeroed_pages_are_found_before_an_id_is_trusted(tmp_path: Path) -> None:
    kept, model = stored(tmp_path)
    (path,) = kept.files()
    whole = path.read_bytes()
    in_checksums = HEADER_BYTES + kept.metas[0].capacity * ROW_BYTES
    zeros, damaged_count = bytes(PAGE_BYTES), 0
    for at in range(0, len(whole), PAGE_BYTES * 16):
        if whole[at : at + PAGE_BYTES] == zeros:
            continue
        with path.open("r+b") as file:
            file.seek(at)
            file.write(zeros)
        said = answer(kept, model)
        # What the last transaction changed of the checksums, the store itself knows.
        assert said == "damaged" or (said is True and at + PAGE_BYTES > in_checksums), at
        damaged_count += said == "damaged"
        path.write_bytes(whole)
    assert damaged_count > 15


@pytest.mark.parametrize("what", ["missing", "older", "newer", "truncated", "another", "empty"])
def test_a_file_that_is_not_the_stores_is_refused(tmp_path: Path, what: str) -> None:
    kept, _ = stored(tmp_path / "seen")
    (path,) = kept.files()
    copy = tmp_path / "copy"
    shutil.copy(path, copy)
    metas = kept.metas
    for number in range(2):
        kept.insert({bytes([number]) * 16: 1})
        kept.store()
    match what:
        case "missing":
            path.unlink()
        case "older":
            shutil.copy(copy, path)
        case "newer":
            kept.metas, kept.redo = metas, b""
        case "truncated":
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size - ROW_BYTES)
        case "another":
            path.write_bytes(b"not a segment".ljust(path.stat().st_size, b"\0"))
        case "empty":
            path.write_bytes(b"")
    with pytest.raises(StoreDamaged, match="segment of seen ids"):
        kept.kill()


def test_a_copy_that_is_one_transaction_older_is_found_at_the_look_up(tmp_path: Path) -> None:
    """Of that one, the store itself knows the checksums: they are not missed, but the rows are."""
    kept, _ = stored(tmp_path / "seen")
    (path,) = kept.files()
    shutil.copy(path, tmp_path / "copy")
    kept.insert({bytes(16): 1})
    kept.store()
    shutil.copy(tmp_path / "copy", path)
    kept.kill()
    with pytest.raises(StoreDamaged, match="is damaged in block 0"):
        kept.ids.lookup([bytes(16)])


def test_damage_is_not_copied_into_a_larger_table(tmp_path: Path, small: None) -> None:
    rng = random.Random(6)
    kept = Kept(tmp_path)
    kept.insert(some_ids(rng, 70))
    kept.store()
    (path,) = kept.files()
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(bytes(64 * ROW_BYTES))
    kept.kill()
    with pytest.raises(StoreDamaged, match="damaged in block 0"):
        kept.insert(some_ids(rng, 70))


def test_files_that_the_store_does_not_name_are_deleted(tmp_path: Path) -> None:
    kept, model = stored(tmp_path)
    shutil.copy(kept.files()[0], tmp_path / "00000007.seen")
    (tmp_path / "00000008.new").write_bytes(b"unfinished")
    assert answer(kept, model) is True
    assert [path.name for path in kept.files()] == ["00000000.seen"]
