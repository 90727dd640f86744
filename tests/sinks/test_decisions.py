"""The sink's pure parts: blocks, positions, dead-letter rows, and what health answers."""

import json
from base64 import b64decode
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from schemas import headers
from sinks.blocks import BlockBuilder
from sinks.errors import PositionLostError
from sinks.positions import first_position
from sinks.rows import encode_dead_letter
from sinks.status import STUCK_S, Status
from streams.outage import Outage

P = TopicPartition("usage-rated", 0)


def record(offset: int, size: int = 1) -> Any:
    return SimpleNamespace(offset=offset, value=b"x" * size)


@given(
    fetches=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=9), max_size=9),
    rows_max=st.integers(1, 7),
    bytes_max=st.integers(1, 60),
)
def test_blocks_hold_every_record_once_within_their_bounds(
    fetches: list[list[int]], rows_max: int, bytes_max: int
) -> None:
    builder = BlockBuilder(rows_max, 1.0, bytes_max)
    blocks, offset = [], 0
    for sizes in fetches:
        remaining = [record(offset + n, size) for n, size in enumerate(sizes)]
        offset += len(sizes)
        while remaining:
            taken = builder.add(P, remaining, 1, 0.0)
            remaining = remaining[taken:]
            if builder.is_full:
                blocks.append(builder.finish())
    blocks.append(builder.finish())

    seen = [each.offset for block in blocks for each in block.records.get(P.topic, [])]
    assert seen == list(range(offset))
    for block in blocks:
        assert block.rows <= rows_max
        assert block.bytes <= bytes_max or block.rows == 1
        if block.rows:
            assert block.positions[P] == block.records[P.topic][-1].offset + 1


def test_a_new_generation_drops_what_was_read_before() -> None:
    builder = BlockBuilder(10, 1.0)
    builder.add(P, [record(5)], 1, 0.0)
    builder.add(P, [record(3)], 2, 0.0)
    block = builder.finish()

    assert (block.generation, block.rows, block.positions) == (2, 1, {P: 4})


def test_a_block_is_due_when_its_first_record_has_waited() -> None:
    builder = BlockBuilder(10, 1.0)
    assert not builder.is_due(99.0)
    builder.add(P, [record(0)], 0, 100.0)
    builder.add(P, [record(1)], 0, 100.9)

    assert not builder.is_due(100.9)
    assert builder.is_due(101.0)


@pytest.mark.parametrize(
    ("committed", "start", "end", "from_earliest", "outcome"),
    [
        (7, 0, 9, False, (7, 0)),
        (7, 7, 7, False, (7, 0)),
        (None, 0, 9, False, (0, 0)),
        (None, 3, 9, False, "starts at 3, not at 0"),
        (None, 3, 9, True, (3, 0)),
        (2, 5, 9, False, "3 records were deleted before the sink read them"),
        (2, 5, 9, True, (5, 3)),
        (12, 0, 9, False, "the log ends at 9"),
        (12, 0, 9, True, (0, 0)),
    ],
)
def test_first_position(
    committed: int | None, start: int, end: int, from_earliest: bool, outcome: Any
) -> None:
    if isinstance(outcome, str):
        with pytest.raises(PositionLostError, match=outcome):
            first_position("ledger/0", committed, start, end, from_earliest)
    else:
        assert first_position("ledger/0", committed, start, end, from_earliest) == outcome


def dead(
    value: bytes | None, *given_headers: tuple[str, bytes], key: bytes | None = b"org_1"
) -> Any:
    ours = [
        (headers.REASON, b"no_price"),
        (headers.DETAIL, "kein Preis für x".encode()),
        (headers.TOPIC, b"usage"),
        (headers.PARTITION, b"3"),
        (headers.OFFSET, b"77"),
        (headers.APPEND_TIME_MS, b"1793620800000"),
    ]
    record = SimpleNamespace(
        topic="dead-letters", partition=1, offset=5, timestamp=1793620801000,
        key=key, value=value, headers=[*given_headers, *ours],
    )  # fmt: skip
    return json.loads(encode_dead_letter(record, "cluster"))


def test_a_dead_letter_row_keeps_the_bytes_and_tells_whose_it_is() -> None:
    value = b'{"id":"evt_1","source":"editor","organizationid":"org_2"}'
    row = dead(value, ("reason", b"\xff"), ("ce_x", b"1"))

    assert b64decode(row["value_base64"]) == value
    assert (row["organization_id"], row["event_id"], row["source"]) == ("org_1", "evt_1", "editor")
    assert (row["reason"], row["input_topic"], row["input_partition"]) == ("no_price", "usage", 3)
    assert (row["input_offset"], row["offset"]) == (77, 5)
    assert row["appended_at"] == "2026-11-02T12:00:00.000+00:00"
    assert [(each["name"], b64decode(each["value_base64"])) for each in row["headers"]] == [
        ("reason", b"\xff"),
        ("ce_x", b"1"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\x00",
        b"[]",
        b"{",
        b'{"id":7,"source":null}',
        b"[" * 2_000 + b"]" * 2_000,
        b'{"id":' * 1_000 + b"1" + b"}" * 1_000,
        b'{"id":"\\ud800","organizationid":"\\udfff"}',
        b'{"id":1e999999,"source":' + b"9" * 5_000 + b"}",
    ],
)
def test_a_dead_letter_may_be_anything(value: bytes | None) -> None:
    row = dead(value, key=b"\xff")

    assert b64decode(row["value_base64"]) == (value or b"")
    assert row["organization_id"] == row["event_id"] == ""


@pytest.mark.parametrize("at", [b"9" * 18, b"253402300800000", b"-1", b"\xd9\xa1", b""])
def test_an_append_time_that_no_table_holds_is_no_failure(at: bytes) -> None:
    record = SimpleNamespace(
        topic="dead-letters", partition=1, offset=5, timestamp=2**62,
        key=b"k", value=b"v", headers=[(headers.APPEND_TIME_MS, at)],
    )  # fmt: skip
    row = json.loads(encode_dead_letter(record, "cluster"))
    assert datetime.fromisoformat(row["appended_at"]) < datetime(2300, 1, 1, tzinfo=UTC)


def test_binary_mode_tells_by_its_headers() -> None:
    row = dead(b"{}", ("ce_id", b"e"), ("ce_source", b"s"), ("ce_organizationid", b"o"), key=None)

    assert (row["organization_id"], row["event_id"], row["source"]) == ("o", "e", "s")


def test_only_what_follows_the_last_reason_is_the_workers() -> None:
    own = [("part", b"a"), ("reason", b"b"), ("packed", None), ("offset", b"c")]
    ours = [("reason", b"d"), ("detail", b"e"), ("part", b"1/2")]
    originals, added = headers.take_apart([*own, *ours])
    assert originals == own
    assert added == {"reason": b"d", "detail": b"e", "part": b"1/2"}
    assert headers.take_apart(own[:1]) == (own[:1], {})


def test_health_tells_what_is_down_and_what_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    clickhouse = Outage("clickhouse")
    status = Status(clickhouse)
    assert "assigned no partitions" in str(status.ready())
    status.has_joined = lambda: True
    assert status.ready() is None
    clickhouse.begin("refused")
    assert status.ready() == "clickhouse: refused"
    status.lag_records = 5
    monkeypatch.setattr("sinks.status.time.monotonic", lambda: 10**9 + STUCK_S)
    assert status.live() is None, "waiting for ClickHouse is being alive"
    clickhouse.end()
    assert "5 records wait" in str(status.live())
