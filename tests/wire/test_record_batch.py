"""Record batches as anybody may send them: read whole, kept as they came, written unchanged."""

import random
import struct
from typing import Any

import cramjam
import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.util import calc_crc32c, encode_varint

from streams.wire import record_batch
from streams.wire.record_batch import ReadableBatch, RecordBatch, Unreadable, is_text

ODD = b"\xff\xfename\x80"
CODECS: dict[int, Any] = {
    0: bytes,
    1: cramjam.gzip.compress,
    2: cramjam.snappy.compress_raw,
    3: cramjam.lz4.compress,
    4: cramjam.zstd.compress,
}


def varint(number: int) -> bytes:
    raw = bytearray()
    encode_varint(number, raw.append)
    return bytes(raw)


def field(raw: bytes | None) -> bytes:
    return varint(-1) if raw is None else varint(len(raw)) + raw


def record(number: int, value: bytes | None, *headers: tuple[bytes, bytes | None]) -> bytes:
    """As Kafka's documents describe it; nothing of aiokafka's builders."""
    body = b"\0" + varint(0) + varint(number) + field(b"key") + field(value) + varint(len(headers))
    body += b"".join(varint(len(name)) + name + field(text) for name, text in headers)
    return varint(len(body)) + body


def batch(*records: bytes, codec: int = 0, count: int | None = None, base: int = 100) -> bytes:
    count = len(records) if count is None else count
    tail = struct.pack(">hiqqqhii", codec | 8, count - 1, 1_000, 2_000, -1, -1, -1, count) + bytes(
        CODECS[codec](b"".join(records))
    )
    body = struct.pack(">ibI", 0, 2, calc_crc32c(tail)) + tail
    return struct.pack(">qi", base, len(body)) + body


def unpacked(raw: bytes) -> list[Any]:
    records = fetcher.MemoryRecords(raw)
    assert records.has_next()
    whole = records.next_batch()
    assert isinstance(whole, ReadableBatch)
    assert whole.validate_crc()
    return list(whole)


@pytest.mark.parametrize("codec", CODECS)
def test_header_names_of_any_bytes_are_read_and_the_records_around_them(codec: int) -> None:
    plain = [record(number, b"v%d" % number) for number in range(600)]
    plain[300] = record(300, b"odd", (ODD, b"x"), (b"", None), ("é".encode(), b""))
    records = unpacked(batch(*plain, codec=codec))
    assert [each.offset for each in records] == list(range(100, 700))
    assert [each.value for each in records[298:303]] == [b"v298", b"v299", b"odd", b"v301", b"v302"]
    assert {each.timestamp for each in records} == {2_000}
    (odd, *others) = records[300].headers
    assert odd == (ODD.decode("utf-8", "surrogateescape"), b"x")
    assert others == [("", None), ("é", b"")]


@pytest.mark.parametrize("codec", CODECS)
def test_only_what_is_odd_is_read_patiently(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin in Python takes thirty times as long."""
    monkeypatch.setattr(record_batch, "_PatientBatch", None)
    raw = batch(*(record(number, b"v%d" % number) for number in range(1_000)), codec=codec)
    assert [each.value for each in unpacked(raw)] == [b"v%d" % number for number in range(1_000)]


ODD_AND_PLAIN = [(ODD.decode("utf-8", "surrogateescape"), b"x"), ("plain", None)]


def test_a_name_of_other_bytes_than_utf_8_is_no_text() -> None:
    assert not is_text(ODD_AND_PLAIN)
    assert is_text(ODD_AND_PLAIN[1:])


def test_a_full_batch_takes_no_further_record() -> None:
    written = RecordBatch(10_000, None, 5, takes_any_name=True)
    assert written.add(None, b"v" * 9_000, [])
    assert not written.add(None, b"v" * 9_000, [])


@pytest.mark.parametrize("compression", [None, "snappy", "zstd"])
def test_a_name_is_written_as_the_bytes_that_it_was(compression: str | None) -> None:
    written = RecordBatch(10_000, compression, 5, takes_any_name=True)
    assert written.add(b"k", None, ODD_AND_PLAIN)
    assert written.add(None, b"v" * 9_000, [])
    raw = bytes(written._build())
    if compression is None:
        assert ODD in raw
    first, second = unpacked(raw)
    assert (first.key, first.value, list(first.headers)) == (b"k", None, ODD_AND_PLAIN)
    assert (second.key, second.value, list(second.headers)) == (None, b"v" * 9_000, [])


@pytest.mark.parametrize("takes_any_name", [False, True])
def test_a_batch_takes_its_first_record_whatever_its_size(takes_any_name: bool) -> None:
    written = RecordBatch(100, None, 5, takes_any_name=takes_any_name)
    assert written.add(None, b"v" * 1_000, [])
    assert not written.add(None, b"v", [])


@pytest.mark.parametrize("codec", [1, 3, 4])
def test_what_unpacks_to_more_than_the_limit_is_kept_as_it_came(codec: int) -> None:
    bomb = batch(record(0, b"a"), record(1, bytes(40 << 20)), codec=codec)
    assert len(bomb) < 1 << 20
    (unreadable,) = unpacked(bomb)
    assert isinstance(unreadable, Unreadable)
    assert (unreadable.value, unreadable.offset, unreadable.count, unreadable.is_too_large) == (
        bomb,
        100,
        2,
        True,
    )
    assert "100 to 101" in unreadable.why


@pytest.mark.parametrize("codec", [1, 3, 4])
def test_what_could_be_too_large_and_is_not_is_read(
    codec: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_batch, "UNPACKED_LIMIT_BYTES", 100_000)
    large = random.Random(1).randbytes(1_000) * 90
    records = unpacked(batch(record(0, b"a"), record(1, large), codec=codec))
    assert [each.value for each in records] == [b"a", large]


BROKEN = {
    "a record that is cut off": batch(record(0, b"a"), record(1, b"b")[:-2]),
    "bytes after the last record": batch(record(0, b"a"), b"abc", count=1),
    "fewer records than it says": batch(record(0, b"a"), count=3),
    "a length beyond the batch": batch(record(0, b"a"), varint(10**6) + b"x", count=2),
    "a negative number of headers": batch(
        record(0, b"a"),
        varint(7) + b"\0" + varint(0) + varint(1) + varint(-1) + varint(-1) + varint(-1) + b"\0",
        count=2,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_unpacked_does_not_fail(name: str) -> None:
    records = unpacked(BROKEN[name])
    assert isinstance(records[-1], Unreadable)
    assert records[-1].value == BROKEN[name]
    assert not records[-1].is_too_large
    assert [each.value for each in records[:-1]] in ([], [b"a"])


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_bytes_that_are_not_compressed_as_they_say_do_not_fail(codec: int) -> None:
    raw = bytearray(batch(random.Random(2).randbytes(5_000), count=1))
    struct.pack_into(">h", raw, 21, codec | 8)
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    (unreadable,) = unpacked(bytes(raw))
    assert isinstance(unreadable, Unreadable)


@pytest.mark.parametrize("seed", range(3))
def test_no_bytes_make_reading_fail(seed: int) -> None:
    chance = random.Random(seed)
    records = [record(number, b"v" * number, (b"name", b"x")) for number in range(20)]
    for _ in range(1_500):
        raw = bytearray(batch(*records, codec=chance.choice((0, 0, 1, 2, 3, 4))))
        for _ in range(chance.randrange(1, 6)):
            raw[chance.randrange(61, len(raw))] = chance.randrange(256)
        some_batch = fetcher.MemoryRecords(bytes(raw)).next_batch()
        for each in some_batch:
            assert isinstance(each.offset, int)
