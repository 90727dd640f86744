"""Any bytes: the quick way, the thorough way and the model read the same, and none raises."""

import json
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cli.verification.parsing import Refused, Usage, read_usage
from schemas.codec import encode
from schemas.topics import ORIGINAL_APPEND_TIME_HEADER
from streams.decisions.envelopes import parse_thoroughly
from streams.decisions.events import Limits, UsageEvent
from streams.decisions.intake import Intake
from tests.decisions.worker import ORG, T0, cloud_event

AGE = timedelta(days=35)
ODD_TEXTS = st.sampled_from(
    ["", "a", "\0", "x" * 256, "x" * 257, "é😀", "org_7", "org_8", "\\", '"', "\n", "\ud800"]
)
NUMBERS = st.one_of(
    st.integers(-5, 10**14),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-5, 10**14, places=7).map(str),
    st.decimals(0, 10**13, places=6).map(str),
    st.sampled_from([2**63, -(2**70), "1e3", "01", "1.", "9223372036854.775808"]),
)
TIMES = st.one_of(
    st.integers(-40 * 86_400, 600).map(lambda s: (T0 + timedelta(seconds=s)).isoformat()),
    st.sampled_from(
        [
            "2026-11-01T12:00:00.1234565Z",
            "2026-11-01t13:00:00.999999999+01:00",
            "2026-11-01 12:00:00-0000",
            "2026-11-01T12:00:60Z",
            "2026-11-01T24:00:00Z",
            "2026-11-01T12:00:00",
            "2026-11-01",
            "",
        ]
    ),
)
JUNK = st.one_of(st.none(), st.booleans(), NUMBERS, ODD_TEXTS, st.just([]), st.just({}))
DIMENSIONS = st.dictionaries(ODD_TEXTS, st.one_of(ODD_TEXTS, JUNK), max_size=3)
MANY_DIMENSIONS = st.integers(19, 22).map(lambda n: {f"d{i}": i for i in range(n)})


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """A good event with up to three parts made odd."""
    event: dict[str, Any] = json.loads(encode(cloud_event()))
    data = event["data"]
    changes = draw(
        st.lists(st.sampled_from(["id", "type", "subject", "organizationid", "time", "quantity",
                                  "website_id", "dimensions", "drop", "specversion"]), max_size=3)
    )  # fmt: skip
    for name in changes:
        if name == "drop":
            event.pop(draw(st.sampled_from(sorted(event))), None)
        elif name == "time":
            event[name] = draw(st.one_of(TIMES, JUNK))
        elif name == "quantity":
            data[name] = draw(st.one_of(NUMBERS, JUNK))
        elif name == "dimensions":
            data[name] = draw(st.one_of(DIMENSIONS, MANY_DIMENSIONS, JUNK))
        elif name == "website_id":
            data[name] = draw(st.one_of(ODD_TEXTS, JUNK))
        else:
            event[name] = draw(st.one_of(ODD_TEXTS, JUNK))
    return event


KEYS = st.sampled_from([ORG.encode(), ORG.encode(), None, b"", b"org_8", b"\xff", b"x" * 257])


HeaderList = list[tuple[str, bytes | None]]


def read_by_model(value: bytes, key: bytes | None, headers: HeaderList) -> Usage | Refused:
    try:
        return read_usage(value, key, headers, T0, AGE)
    except Refused as refused:
        return refused


def check_all_ways(value: bytes, key: bytes | None, headers: HeaderList) -> None:
    quick = Intake(Limits()).parse(value, key, headers, T0)
    thorough = parse_thoroughly(value, key, headers, T0, Limits())
    assert quick == thorough
    expected = read_by_model(value, key, headers)
    if isinstance(expected, Refused):
        assert not isinstance(quick, UsageEvent), expected.reason
        assert quick.reason == expected.reason, quick.detail
        return
    assert isinstance(quick, UsageEvent), quick
    encode(quick)
    for name in ("organization_id", "source", "event_id", "meter", "subject", "website_id"):
        assert getattr(quick, name) == getattr(expected, name)
    assert quick.dimensions == expected.dimensions
    assert quick.quantity_micro == expected.quantity_micro
    assert quick.event_time == expected.event_time


@settings(max_examples=600)
@given(events(), KEYS)
def test_odd_events_are_read_alike(event: dict[str, Any], key: bytes | None) -> None:
    for ascii_only in (True, False):
        value = json.dumps(event, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        check_all_ways(value, key, [])


@settings(max_examples=300)
@given(events(), KEYS, st.data())
def test_binary_mode_is_read_alike(
    event: dict[str, Any], key: bytes | None, draws: st.DataObject
) -> None:
    data = event.pop("data", None)
    headers: HeaderList = [
        (f"ce_{name}", str(value).encode("utf-8", "surrogatepass"))
        for name, value in event.items()
        if value is not None
    ]
    headers.append(("content-type", draws.draw(st.sampled_from([b"application/json", b""]))))
    original = draws.draw(st.sampled_from([None, b"1793534400000", b"1790000000000", b"x"]))
    headers.append((ORIGINAL_APPEND_TIME_HEADER, original))
    check_all_ways(json.dumps(data).encode(), key, headers)


@settings(max_examples=600)
@given(events(), st.data())
def test_damaged_bytes_are_read_alike(event: dict[str, Any], draws: st.DataObject) -> None:
    value = bytearray(json.dumps(event).encode())
    for _ in range(draws.draw(st.integers(1, 3))):
        place = draws.draw(st.integers(0, len(value) - 1))
        value[place] = draws.draw(st.sampled_from(b'"{}[]:,0\\ue.-\x00\xffa '))
    check_all_ways(bytes(value), ORG.encode(), [])
