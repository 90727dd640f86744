"""One record batch: written quickly, and read whatever anybody has put into it.

Kafka keeps a header's name as bytes. One that is no UTF-8 is read with surrogate escapes, as
Python reads file names, and written as the same bytes again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final, Protocol

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import (
    DefaultRecordBatch,
    _DefaultRecordBatchBuilderPy,
    _DefaultRecordBatchPy,
)
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint_py

Headers = list[tuple[str, bytes | None]]

COMPRESSION_TYPES: Final = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
UNPACKED_LIMIT_BYTES: Final = 32 << 20
"""What a record batch may unpack to: thirty times the largest that a producer sends of itself."""
CHUNK_RECORDS: Final = 256
HEADER_BYTES: Final = 61
RECORD_BYTES: Final = 41
"""Of a record beside its key, value and headers: lengths, attributes, time and offset."""
ATTRIBUTES: Final = slice(21, 23)
COMPRESSION_MASK: Final = 0x07
_BOUNDED: Final = {
    1: (1_032, cramjam.gzip.decompress_into),
    3: (255, cramjam.lz4.decompress_into),
    4: (1 << 15, cramjam.zstd.decompress_into),
}
"""By compression: how many times larger its bytes can become. Snappy's become 22 times at most,
which the broker's limit of a batch bounds well enough."""


class Record(Protocol):
    """A record as it is read; where it lies is known by whoever reads it."""

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int:
        """When the broker appended it: milliseconds since 1970."""

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


def is_text(headers: Headers) -> bool:
    """Whether all names are UTF-8."""
    try:
        for name, _ in headers:
            name.encode()
    except UnicodeEncodeError:
        return False
    return True


def size_of(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """At most so many bytes the record takes in a batch of its own, uncompressed."""
    size = HEADER_BYTES + RECORD_BYTES + len(key or b"") + len(value or b"")
    # A character is at most four bytes, a length at most five.
    return size + sum(4 * len(name) + len(text or b"") + 10 for name, text in headers)


class _Name(str):
    """A header's name whose bytes are no UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", _errors: str = "strict") -> bytes:
        return str.encode(self, encoding, "surrogateescape")


class RecordBatch(BatchBuilder):  # type: ignore[misc]
    """aiokafka's builder, with an `add` that costs a third of its `append`."""

    _relative_offset: int

    def __init__(
        self,
        size_bytes: int,
        compression: str | None,
        now_ms: int,
        *,
        takes_any_name: bool = False,
        is_transactional: bool = True,
    ) -> None:
        """`size_bytes` is that of the whole batch before compression; the first record is taken
        whatever its size. With `takes_any_name` it is slow."""
        codec = COMPRESSION_TYPES[compression]
        super().__init__(size_bytes, codec, is_transactional=int(is_transactional))
        self._now_ms = now_ms
        self._takes_any_name = takes_any_name
        if takes_any_name:
            self._builder = _DefaultRecordBatchBuilderPy(
                2, codec, int(is_transactional), -1, -1, 0, size_bytes
            )

    def add(self, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Whether there was room."""
        offset: int = self._relative_offset
        if self._takes_any_name:
            headers = [(_Name(name), text) for name, text in headers]
        if self._builder.append(offset, self._now_ms, key, value, headers) is None:
            return False
        self._relative_offset = offset + 1
        return True

    def packed(self) -> bytes:
        """The batch as Kafka keeps it; nothing can be added any more."""
        return bytes(self._build())

    def _set_producer_state(self, producer_id: int, epoch: int, base_sequence: int) -> None:
        """aiokafka's asserts that the builder is of C."""
        self._builder.set_producer_state(producer_id, epoch, base_sequence)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for the records of a batch that cannot be unpacked, or not within the limit."""

    offset: int
    """Of the first of them."""
    timestamp: int
    value: bytes
    """The whole batch as Kafka keeps it."""
    count: int
    """How many records it stands for, as the batch says."""
    why: str
    """A sentence for a person."""
    is_too_large: bool
    timestamp_type: int = 1
    key: None = None
    checksum: None = None
    headers: Headers = field(default_factory=list)


class ReadableBatch:
    """A fetched record batch; to be iterated over once. Whatever is in it, iterating does not fail:
    what cannot be read comes as one `Unreadable`."""

    __slots__ = ("_batch", "_packed")

    def __init__(self, batch: Any, packed: memoryview) -> None:
        """`batch` is aiokafka's, `packed` its bytes."""
        self._batch = batch
        self._packed = packed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """For aiokafka, which reads markers of transactions so."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._chunks())

    def _chunks(self) -> Iterator[Sequence[Any]]:
        ratio, decompress_into = _BOUNDED.get(self._batch.compression_type, (0, None))
        batch, packed = self._batch, self._packed
        if decompress_into is not None and len(packed) * ratio > UNPACKED_LIMIT_BYTES:
            unpacked = bytearray(UNPACKED_LIMIT_BYTES)
            try:
                size = decompress_into(packed[HEADER_BYTES:], unpacked)
            except cramjam.DecompressionError as error:
                yield [self._unreadable(0, str(error), is_too_large="whole buffer" in str(error))]
                return
            packed = memoryview(_uncompressed(packed, unpacked, size))
            batch = DefaultRecordBatch(packed)
        yielded = 0
        try:
            # aiokafka's batch may be asked for its iterator once, and `islice` asks each time.
            records = chain(batch)
            while some := list(islice(records, CHUNK_RECORDS)):
                yield some
                yielded += len(some)
        except Exception:  # noqa: BLE001 - of any kind: the twin in Python reads on or says why
            yield from self._read_patiently(packed, yielded)

    def _read_patiently(self, packed: memoryview, yielded: int) -> Iterator[Sequence[Any]]:
        """Record by record, without those that were given already."""
        records = _PatientBatch(packed)
        try:
            for number, record in enumerate(records):
                if number >= yielded:
                    yield [record]
                    yielded += 1
        except Exception as error:  # noqa: BLE001 - a producer's bytes, of which anything may be said
            yield [self._unreadable(yielded, repr(error), is_too_large=False)]

    def _unreadable(self, yielded: int, why: str, *, is_too_large: bool) -> Unreadable:
        batch, packed = self._batch, bytes(self._packed)
        count = int.from_bytes(packed[57:61], "big") - yielded
        what = (
            f"it unpacks to more than {UNPACKED_LIMIT_BYTES} bytes"
            if is_too_large
            else f"it cannot be unpacked: {why[:200]}"
        )
        return Unreadable(
            batch.base_offset + yielded,
            batch.max_timestamp,
            packed,
            count,
            f"The record batch of offsets {batch.base_offset} to {batch.next_offset - 1} is kept "
            f"as it came, because {what}.",
            is_too_large,
        )


def _uncompressed(packed: memoryview, records: bytearray, size: int) -> bytes:
    """The batch as if it had not been compressed. Its checksum no longer holds: it was checked."""
    header = bytearray(packed[:HEADER_BYTES])
    attributes = int.from_bytes(header[ATTRIBUTES], "big") & ~COMPRESSION_MASK
    header[ATTRIBUTES] = attributes.to_bytes(2, "big")
    return b"".join((header, memoryview(records)[:size]))


class _AnyBytes(bytearray):
    """Bytes of which every part can be read as text."""

    def __getitem__(self, at: Any) -> Any:
        item = super().__getitem__(at)
        return _AnyBytes(item) if isinstance(at, slice) else item

    def decode(self, encoding: str = "utf-8", _errors: str = "strict") -> str:
        return super().decode(encoding, "surrogateescape")


class _PatientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """aiokafka's reading in Python, of header names of any bytes."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _AnyBytes(self._buffer)

    def _read_msg(self, _decode_varint: Any = None) -> Any:
        # The C implementation reads beyond the end where a length is too large.
        return super()._read_msg(decode_varint_py)


class _Records(_MemoryRecordsPy):  # type: ignore[misc]
    """aiokafka's splitting of a fetch into record batches, which become readable ones."""

    def next_batch(self) -> Any:
        packed = self._next_slice
        batch = super().next_batch()
        return ReadableBatch(batch, packed) if isinstance(batch, DefaultRecordBatch) else batch


fetcher.MemoryRecords = _Records
