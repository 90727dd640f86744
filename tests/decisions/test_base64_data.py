"""Structured events whose data is JSON in base64, as SDKs send what they were given as bytes."""

import base64
from typing import Any

import msgspec
import pytest

from tests.decisions.test_intake import parse, reason_of
from tests.decisions.worker import cloud_event


def in_base64(data: bytes) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    return cloud_event(data=None) | {"data_base64": encoded}


def test_data_in_base64_is_the_same_event() -> None:
    plain = parse(cloud_event())
    assert parse(in_base64(b'{"quantity":1830}')) == plain
    without_data = in_base64(b'{"quantity":1830}')
    without_data.pop("data", None)
    assert parse(without_data) == plain


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("eyJxdWFudGl0eSI6NX0", "invalid_event"),
        ("eyJxdWF udGl0eSI6NX0=", "invalid_event"),
        ("größer", "invalid_event"),
        (5, "invalid_event"),
        ({}, "invalid_event"),
        (base64.b64encode(b"[1]").decode(), "invalid_event"),
        (base64.b64encode(b"{").decode(), "not_json"),
        (base64.b64encode(b'{"quantity":1,"x":"\xff"}').decode(), "not_json"),
        (base64.b64encode(b'{"quantity":1.5}').decode(), "float_quantity"),
        ("", "not_json"),
    ],
)
def test_base64_that_is_no_data_is_refused(encoded: object, reason: str) -> None:
    event = in_base64(b"") | {"data_base64": encoded}
    assert reason_of(parse(event)) == reason


def test_data_in_both_forms_is_refused_however_it_is_read() -> None:
    both = in_base64(b'{"quantity":1830}') | {"data": {"quantity": 1830}}
    assert reason_of(parse(both)) == "invalid_event"
    assert reason_of(parse(both, headers=[("traceparent", b"00-ab")])) == "invalid_event"


def test_a_number_beyond_all_bounds_is_no_base64() -> None:
    value = msgspec.json.encode(in_base64(b"")).replace(b'"data_base64":""', b'"data_base64":1e999')
    assert reason_of(parse(value)) == "invalid_event"
