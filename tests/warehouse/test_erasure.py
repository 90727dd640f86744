"""Dead letters that name an erased person lose their bytes; others keep them."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas import codec
from tests.conftest import MakeSettings
from warehouse.connection import connect
from warehouse.erasure import Erased, erase_dead_letters, erase_rejects
from warehouse.migrations import migrate

SECRET = b"a secret"
ANN = Erased("org_a", "u1", {codec.alias_hash(SECRET, "ann@example.com")}, SECRET)
AT = datetime(2026, 11, 10, tzinfo=UTC)
COLUMNS = (
    *("cluster_id", "topic", "partition", "offset", "recorded_at", "organization_id"),
    *("detail", "input_topic", "input_partition", "input_offset", "value_base64", "headers"),
)


@pytest.fixture
def client(make_settings: MakeSettings, clickhouse: object) -> Iterator[Any]:
    settings = make_settings()
    migrate(settings)
    opened = connect(settings)
    yield opened
    opened.close()


def put(
    client: Any,
    offset: int,
    value: bytes,
    *,
    organization_id: str = "org_a",
    subject: bytes = b"",
    detail: str = "",
    input_offset: int | None = None,
) -> None:
    headers = [("ce_subject", b64encode(subject).decode())] if subject else []
    row = (
        *("c", "dead-letters", 0, offset, AT, organization_id, detail, "usage", 0),
        offset if input_offset is None else input_offset,
        b64encode(value).decode(),
        headers,
    )
    client.insert("dead_letter_rows", [row], column_names=COLUMNS)


def emptied(client: Any) -> list[int]:
    rows = client.query(
        "SELECT offset FROM dead_letters WHERE value_base64 = '' AND empty(headers) "
        "AND detail = '(erased)' ORDER BY offset"
    )
    return [row[0] for row in rows.result_rows]


@pytest.mark.parametrize(
    ("value", "is_hers"),
    [
        (b'{"subject":"u1"}', True),
        (b'{"subject":"ANN@example.com"}', True),
        (rb'{"subject":"ann\u0040example.com"}', True),
        (b'{"data":{"dimensions":{"who":["mailto:ann@example.com"]}}}', True),
        (b"no JSON, from ann@example.com; thanks", True),
        (b"\xff\xfe u1", True),
        (b'{"subject":"u10"}', False),
        (b'{"subject":"joann@example.com"}', False),
        (b"", False),
    ],
)
def test_a_letter_is_hers_by_id_or_address(client: Any, value: bytes, is_hers: bool) -> None:
    put(client, 1, value)
    assert erase_dead_letters(client, ANN) == int(is_hers)
    assert emptied(client) == [1] * int(is_hers)


def test_headers_detail_and_parts_count_and_other_organizations_do_not(client: Any) -> None:
    put(client, 1, b"", subject=b"ann@example.com")
    put(client, 2, b"x", detail="Member 'u1' is unknown.")
    put(client, 3, b'{"subject":"ann@exa', input_offset=99)
    put(client, 4, b'mple.com"}', input_offset=99)
    put(client, 5, b'{"subject":"u1"}', organization_id="org_b")
    assert erase_dead_letters(client, ANN) == 4
    assert emptied(client) == [1, 2, 3, 4]
    assert erase_dead_letters(client, ANN) == 0


def test_rows_that_clickhouse_refused_are_emptied_too(client: Any) -> None:
    inner = b64encode(b'{"subject":"ann@example.com"}')
    rows = [
        b'{"organization_id":"org_a","subject":"ann@example.com"}',
        b'{"organization_id":"org_a","subject":"ben@example.com"}',
        b'{"organization_id":"org_b","subject":"ann@example.com"}',
        b'{"organization_id":"org_a","value_base64":"' + inner + b'"}',
        b"not even JSON",
    ]
    client.insert(
        "sink_rejects",
        [
            ("c", "usage-rated", 0, offset, AT, "too long", b64encode(row).decode())
            for offset, row in enumerate(rows)
        ],
        column_names=(
            *("cluster_id", "topic", "partition", "offset", "appended_at", "error"),
            "value_base64",
        ),
    )
    assert erase_rejects(client, ANN) == 2
    left = client.query("SELECT offset FROM sink_rejects WHERE value_base64 != '' ORDER BY offset")
    assert [row[0] for row in left.result_rows] == [1, 2, 4]
    assert erase_rejects(client, ANN) == 0
