"""When a local store may be resumed from, and when it must be thrown away."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rocksdict import Options, Rdict

from streams.exactly_once import local_store
from streams.exactly_once.errors import StoreDamaged, StoreFailed
from streams.exactly_once.local_store import META_KEY, LocalStore
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


def test_a_clock_that_went_back_discards_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path).close()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 7200)
    assert is_empty(open_store(tmp_path))


def segment(path: Path) -> Path:
    (file,) = (path / "seen").glob("*.seen")
    return file


def rewrite(path: Path, change: Callable[[bytearray], None]) -> None:
    """In place, as a failing disk would: it stays the same file."""
    content = bytearray(path.read_bytes())
    change(content)
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def flip_all(content: bytearray) -> None:
    content[:] = bytes(each ^ 0xFF for each in content)


def each_file(pattern: str, change: Callable[[bytearray], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        files = list((path / "state").glob(pattern))
        assert files
        for file in files:
            rewrite(file, change)

    return damage


def without_files(pattern: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        for file in (path / "state").glob(pattern):
            file.unlink()

    return damage


def older_seen(path: Path) -> None:
    """The files of seen ids as they were a transaction ago."""
    copy = path.parent / "older"
    shutil.copytree(path / "seen", copy)
    store = open_store(path)
    store.seen.insert_packed(pack({bytes(16): 6}), 1001)
    store.write([], {"seen": 4})
    store.close()
    shutil.rmtree(path / "seen")
    shutil.copytree(copy, path / "seen")


def older_state(path: Path) -> None:
    copy = path.parent / "older"
    shutil.copytree(path / "state", copy)
    store = open_store(path)
    store.seen.insert_packed(pack({bytes(16): 6}), 1001)
    store.write([], {"seen": 4})
    store.close()
    shutil.rmtree(path / "state")
    shutil.copytree(copy, path / "state")


def directory_instead_of(file: Path) -> None:
    file.unlink()
    file.mkdir()


def file_instead_of(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "seen removed": lambda path: shutil.rmtree(path / "seen"),
    "segment removed": lambda path: segment(path).unlink(),
    "segment damaged": lambda path: rewrite(segment(path), flip_all),
    "segment older": older_seen,
    "state older": older_state,
    "state removed": lambda path: shutil.rmtree(path / "state"),
    "CURRENT removed": without_files("CURRENT"),
    "CURRENT damaged": each_file("CURRENT", flip_all),
    "CURRENT empty": each_file("CURRENT", bytearray.clear),
    "MANIFEST removed": without_files("MANIFEST-*"),
    "MANIFEST damaged": each_file("MANIFEST-*", flip_all),
    "SST removed": without_files("*.sst"),
    "SST damaged": each_file("*.sst", flip_all),
    "SST empty": each_file("*.sst", bytearray.clear),
    "OPTIONS damaged": each_file("OPTIONS-*", flip_all),
    "rocksdict's settings damaged": each_file("rocksdict-config.json", flip_all),
    "all of RocksDB removed": without_files("*"),
    "CURRENT a directory": lambda path: directory_instead_of(path / "state" / "CURRENT"),
    "segment a directory": lambda path: directory_instead_of(segment(path)),
    "state a file": lambda path: file_instead_of(path / "state"),
    "seen a file": lambda path: file_instead_of(path / "seen"),
    "all a file": file_instead_of,
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_discarded_and_said_in_a_line(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p00000"
    filled(path).close()
    DAMAGES[what](path)
    capsys.readouterr()
    store = open_store(path)
    said = capsys.readouterr().out
    if is_whole(store):
        # Opening it depends on neither.
        assert what in ("OPTIONS damaged", "rocksdict's settings damaged")
        assert not said
        return
    assert is_empty(store)
    assert said.count("local store discarded") == said.count("\n") == 1
    # What is there now is whole, and stays so.
    store.write([(b"key", b"value")], {"state": 1})
    store.close()
    assert open_store(path).get(b"key") == b"value"


def test_a_store_of_a_former_version_is_discarded(tmp_path: Path) -> None:
    store = filled(tmp_path)
    meta = {"tag": "cluster:topics", "boot_id": "", "written_at_s": 0, "clean": True}
    store.write([(META_KEY, msgspec.json.encode(meta))], {})
    store.abandon()
    reopened = open_store(tmp_path)
    assert reopened.positions == {"state": 7, "seen": 3}  # `write` had the last word
    reopened.close()
    database = Rdict(str(tmp_path / "state"), Options(raw_mode=True))
    database[META_KEY] = msgspec.json.encode(meta)
    database.close()
    assert is_empty(open_store(tmp_path))


def every_key(store: LocalStore) -> None:
    for number in range(20_000):
        store.get(b"k%06d" % number)


def whole_range(store: LocalStore) -> None:
    store.scan(b"k", b"l")


def flush_and_compact(store: LocalStore) -> None:
    """What RocksDB does of itself when enough was written."""
    value = random.Random(1).randbytes(20_000)
    for _ in range(60):
        store.write([(b"k%06d" % number, value) for number in range(0, 20_000, 40)], {})


@pytest.mark.parametrize("use", [every_key, whole_range, flush_and_compact])
def test_damage_of_rocksdb_that_shows_later_is_told(
    tmp_path: Path, use: Callable[[LocalStore], None]
) -> None:
    store = open_store(tmp_path)
    rng = random.Random(2)
    store.write([(b"k%06d" % number, rng.randbytes(99)) for number in range(20_000)], {"state": 7})
    store.close()

    store = open_store(tmp_path)
    for file in (tmp_path / "state").glob("*.sst"):
        rewrite(file, flip_middle)
    with pytest.raises(StoreDamaged, match="checksum"):
        use(store)
    store.discard("a test says so")
    assert is_empty(store)


def flip_middle(content: bytearray) -> None:
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(each ^ 0xFF for each in content[middle : middle + 64])


def test_a_store_that_another_process_has_open_is_left_alone(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with pytest.raises(StoreFailed, match="lock"):
        open_store(tmp_path)
    assert is_whole(store)


def test_scan_is_in_order_and_half_open(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write([(key, b"") for key in (b"a", b"b1", b"b2", b"c")], {})
    assert [key for key, _ in store.scan(b"b", b"c")] == [b"b1", b"b2"]
