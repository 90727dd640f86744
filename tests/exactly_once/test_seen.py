"""Seen ids against a dict: whatever is inserted, in whatever batches, across reopening."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.exactly_once import seen
from streams.exactly_once.seen import SeenIds, pack

WINDOW_MS = 1_000_000
IDS = st.one_of(
    st.binary(min_size=16, max_size=16),
    # Ids that start in the same row of a table, so that probing is exercised.
    st.binary(min_size=8, max_size=8).map(lambda low: bytes(8) + low),
)
BATCHES = st.lists(st.dictionaries(IDS, st.integers(1, 2**64 - 1), max_size=60), max_size=8)


@given(batches=BATCHES, unseen=st.lists(IDS, max_size=20))
@settings(max_examples=60, deadline=None)
def test_finds_exactly_what_was_inserted(
    batches: list[dict[bytes, int]], unseen: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("seen")
    model: dict[bytes, int] = {}
    store = SeenIds(directory, WINDOW_MS)
    for number, batch in enumerate(batches):
        store.insert_packed(pack(batch), 1000 + number)
        model.update(batch)
        if number % 3 == 2:
            store.close()
            store = SeenIds(directory, WINDOW_MS)
    asked = [*model, *unseen]
    assert store.lookup(asked) == [model.get(identity, 0) for identity in asked]
    store.close()


def test_grows_beyond_many_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "FIRST_CAPACITY", 64)
    monkeypatch.setattr(seen, "REHASH_CAPACITY", 256)
    monkeypatch.setattr(seen, "LARGEST_CAPACITY", 1024)
    rng = random.Random(5)
    store = SeenIds(tmp_path, WINDOW_MS)
    model: dict[bytes, int] = {}
    for _ in range(120):
        batch = {rng.randbytes(16): rng.randrange(1, 2**64) for _ in range(rng.randrange(1, 40))}
        store.insert_packed(pack(batch), 5)
        model |= batch
    assert store.lookup(list(model)) == list(model.values())
    assert len(store) == len(model)
    assert len(list(tmp_path.glob("*.seen"))) > 2


def test_forgets_after_the_window_and_not_before(tmp_path: Path) -> None:
    store = SeenIds(tmp_path, WINDOW_MS)
    old, young = bytes([1]) * 16, bytes([2]) * 16
    store.insert_packed(pack({old: 7}), 1000)
    store.insert_packed(pack({young: 8}), 1000 + WINDOW_MS // 2 + 1)
    store.insert_packed(pack({bytes(16): 9}), 1000 + WINDOW_MS - 1)
    assert store.lookup([old, young]) == [7, 8]
    store.insert_packed(pack({bytes([3]) * 16: 9}), 1000 + WINDOW_MS + 1)
    assert store.lookup([old, young]) == [0, 8]


def test_a_row_torn_by_a_kill_neither_matches_nor_hides_others(tmp_path: Path) -> None:
    store = SeenIds(tmp_path, WINDOW_MS)
    wanted = bytes(16)
    store.insert_packed(pack({wanted: 5}), 1000)
    segment = store._segments[0]
    row = int(np.flatnonzero(segment._rows[:, 2])[0])
    segment._rows[row, 2] = 0  # the content is what makes a row count, and is written last
    assert store.lookup([wanted]) == [0]
    store.insert_packed(pack({wanted: 5}), 1001)
    assert store.lookup([wanted]) == [5]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "00000000.seen").write_bytes(b"not a segment".ljust(200, b"\0"))
    with pytest.raises(ValueError, match="not a segment"):
        SeenIds(tmp_path, WINDOW_MS)
