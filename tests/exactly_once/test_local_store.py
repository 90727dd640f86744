"""When a local store may be resumed from, and when it must be thrown away."""

import time
from pathlib import Path

import pytest

from streams.exactly_once import local_store
from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.seen import pack

WINDOW_MS = 1_000_000
IDENTITY = bytes(range(16))


def open_store(path: Path, tag: str = "cluster:topics", max_age_s: float = 3600) -> LocalStore:
    return LocalStore(path, tag=tag, window_ms=WINDOW_MS, max_age_s=max_age_s)


def filled(path: Path) -> LocalStore:
    store = open_store(path)
    store.seen.insert_packed(pack({IDENTITY: 4}), 1000)
    store.write([(b"key", b"value"), (b"gone", b"x")], {"state": 7})
    store.write([(b"gone", None)], {"seen": 3})
    return store


def is_whole(store: LocalStore) -> bool:
    return (
        store.positions == {"state": 7, "seen": 3}
        and store.get(b"key") == b"value"
        and store.get(b"gone") is None
        and store.seen.lookup([IDENTITY]) == [4]
    )


def is_empty(store: LocalStore) -> bool:
    return not store.positions and store.get(b"key") is None and not len(store.seen)


def test_survives_a_clean_end(tmp_path: Path) -> None:
    filled(tmp_path).close()
    assert is_whole(open_store(tmp_path))


def test_survives_a_killed_process(tmp_path: Path) -> None:
    filled(tmp_path).abandon()
    assert is_whole(open_store(tmp_path))


@pytest.mark.parametrize("clean", [True, False])
def test_after_a_restart_of_the_machine_only_a_clean_end_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    store = filled(tmp_path)
    if clean:
        store.close()
    else:
        store.abandon()
    monkeypatch.setattr(local_store, "boot_id", lambda: "another boot")
    store = open_store(tmp_path)
    assert is_whole(store) if clean else is_empty(store)


def test_other_topics_discard_it(tmp_path: Path) -> None:
    filled(tmp_path).close()
    assert is_empty(open_store(tmp_path, tag="cluster:recreated topics"))


def test_age_discards_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path).close()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert is_empty(open_store(tmp_path))


def test_a_damaged_segment_discards_it(tmp_path: Path) -> None:
    filled(tmp_path).close()
    next((tmp_path / "seen").glob("*.seen")).write_bytes(b"damaged")
    assert is_empty(open_store(tmp_path))


def test_scan_is_in_order_and_half_open(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write([(key, b"") for key in (b"a", b"b1", b"b2", b"c")], {})
    assert [key for key, _ in store.scan(b"b", b"c")] == [b"b1", b"b2"]
