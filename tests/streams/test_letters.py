"""What a dead letter holds: the bytes of the record, whatever they are."""

import random

import pytest
from aiokafka.consumer import fetcher

from schemas import headers, topics
from streams import dead_letters
from streams.steps import FactStep, UsageStep
from streams.wire.record_batch import Unreadable
from tests.streams.partition import (
    SETTINGS,
    Partition,
    Record,
)


def test_a_dead_letter_keeps_its_bytes_and_says_where_it_was(partition: Partition) -> None:
    record = Record(b"\xff\x00 no json", key=None, headers=[("a", b"1")], offset=17)
    refused = partition.run(UsageStep(SETTINGS), record).of(topics.DEAD_LETTERS)
    [(_, key, value, letter_headers, to)] = refused
    assert (key, value, to) == (None, b"\xff\x00 no json", None)
    assert letter_headers["a"] == b"1"
    assert letter_headers[headers.OFFSET] == b"17"
    assert letter_headers[headers.TOPIC] == b"usage"
    assert letter_headers[headers.APPEND_TIME_MS] == str(record.timestamp).encode()
    assert letter_headers[headers.DETAIL]


def test_a_value_too_large_for_one_record_is_kept_in_parts(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PART_BYTES", 40_000)
    value = random.Random(1).randbytes(100_000)
    refused = partition.run(UsageStep(SETTINGS), Record(value)).of(topics.DEAD_LETTERS)
    assert b"".join(row[2] for row in refused) == value
    assert [row[3][headers.PART] for row in refused] == [b"1/3", b"2/3", b"3/3"]


def test_a_record_with_more_beside_its_value_than_a_letter_holds_is_packed(
    partition: Partition,
) -> None:
    many = [(f"name {number}", b"x" * 1_000) for number in range(6_000)]
    name = b"\xff".decode("utf-8", "surrogateescape")
    record = Record(b"value", headers=[*many, (name, b"y")], offset=17)
    letters = partition.run(UsageStep(SETTINGS), record).of(topics.DEAD_LETTERS)
    assert {(row[1], row[3][headers.PACKED]) for row in letters} == {(None, b"record-batch")}
    packed = b"".join(row[2] for row in letters)
    (kept,) = fetcher.MemoryRecords(packed).next_batch()
    assert (kept.key, kept.value, list(kept.headers)) == (
        record.key,
        record.value,
        record.headers,
    )


def test_records_that_cannot_be_unpacked_are_one_letter(partition: Partition) -> None:
    packed = bytes(100)
    unreadable = Unreadable(5, 1_000, packed, 3, "The record batch is kept.", is_too_large=True)
    for step in (UsageStep(SETTINGS), FactStep(topics.CREDITS, SETTINGS)):
        [(_, key, value, letter_headers, _)] = partition.run(step, unreadable).of(
            topics.DEAD_LETTERS
        )
        assert (key, value) == (None, packed)
        assert letter_headers[headers.REASON] == b"too_large"
        assert letter_headers[headers.DETAIL] == b"The record batch is kept."
