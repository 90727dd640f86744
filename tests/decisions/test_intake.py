"""Reading usage records: what is accepted as what, and what is refused for which reason."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from schemas.reasons import Reason
from schemas.topics import ORIGINAL_APPEND_TIME_HEADER
from streams.decisions import intake as intake_module
from streams.decisions.envelopes import parse_thoroughly
from streams.decisions.events import Headers, Limits, UsageEvent
from streams.decisions.intake import Intake
from streams.decisions.outcomes import SHOWN_CHARACTERS, Rejected, shown
from tests.decisions.tables import table
from tests.decisions.worker import ORG, T0, cloud_event

LONG = "x" * 257


def parse(
    value: Any, key: bytes | None = ORG.encode(), headers: Headers = ()
) -> UsageEvent | Rejected:
    raw = value if isinstance(value, bytes | None) else msgspec.json.encode(value)
    return Intake(Limits()).parse(raw, key, headers, T0)


def reason_of(parsed: UsageEvent | Rejected) -> str:
    return parsed.reason.value if isinstance(parsed, Rejected) else "accepted"


def replaced(path: str, raw: str) -> bytes:
    """The good event with the JSON text at a path (`data.quantity`) replaced, `-` removes it."""
    event = json.loads(msgspec.json.encode(cloud_event()))
    *parents, name = path.split(".")
    place = event
    for parent in parents:
        place = place.setdefault(parent, {})
    place[name] = "@@"
    if raw == "-":
        del place[name]
    raw = raw.replace("LONG", LONG).replace("DIGITS", "7" * 5_000)
    return json.dumps(event).replace('"@@"', raw).encode()


@table("""
    path               | json                              | expected
    data.quantity      | 0                                 | accepted
    data.quantity      | 9223372036854                     | accepted
    data.quantity      | 9223372036855                     | quantity_too_large
    data.quantity      | 99999999999999999999999999999999  | quantity_too_large
    data.quantity      | "9223372036854.775807"            | accepted
    data.quantity      | "9223372036854.775808"            | quantity_too_large
    data.quantity      | -DIGITS                           | negative_quantity
    data.quantity      | DIGITS                            | quantity_too_large
    data.quantity      | "DIGITS"                          | quantity_too_large
    data.quantity      | "0.000001"                        | accepted
    data.quantity      | "0.0000010"                       | accepted
    data.quantity      | "0.0000001"                       | invalid_quantity
    data.quantity      | "-0.0"                            | accepted
    data.quantity      | -0                                | accepted
    data.quantity      | "-0.1"                            | negative_quantity
    data.quantity      | -1                                | negative_quantity
    data.quantity      | -99999999999999999999             | negative_quantity
    data.quantity      | 1.0                               | float_quantity
    data.quantity      | 1e3                               | float_quantity
    data.quantity      | 1E400                             | float_quantity
    data.quantity      | -1.5                              | float_quantity
    data.quantity      | NaN                               | not_json
    data.quantity      | true                              | invalid_quantity
    data.quantity      | null                              | invalid_quantity
    data.quantity      | [1]                               | invalid_quantity
    data.quantity      | ""                                | invalid_quantity
    data.quantity      | "1e3"                             | invalid_quantity
    data.quantity      | "1."                              | invalid_quantity
    data.quantity      | ".5"                              | invalid_quantity
    data.quantity      | "+1"                              | invalid_quantity
    data.quantity      | " 1"                              | invalid_quantity
    data.quantity      | "1_000"                           | invalid_quantity
    data.quantity      | "٣"                               | invalid_quantity
    data.quantity      | "\\ud800"                         | not_json
    data.quantity      | -                                 | invalid_quantity
    data.website_id    | "web_3"                           | accepted
    data.website_id    | ""                                | accepted
    data.website_id    | null                              | accepted
    data.website_id    | 3                                 | invalid_event
    data.website_id    | "a\\u0000b"                       | invalid_event
    data.website_id    | "LONG"                            | id_too_long
    data.website_id    | "\\udfff"                         | not_json
    data.website_id    | 1e999                             | invalid_event
    data.dimensions    | {"a":"b","n":1,"t":true,"f":false}| accepted
    data.dimensions    | {"a":""}                          | accepted
    data.dimensions    | null                              | accepted
    data.dimensions    | 1e999                             | invalid_event
    data.dimensions    | []                                | invalid_event
    data.dimensions    | {"a":1.5}                         | invalid_event
    data.dimensions    | {"a":null}                        | invalid_event
    data.dimensions    | {"a":{}}                          | invalid_event
    data.dimensions    | {"":"b"}                          | invalid_event
    data.dimensions    | {"a":"\\u0000"}                   | invalid_event
    data.dimensions    | {"a\\u0000":"b"}                  | invalid_event
    data.dimensions    | {"LONG":"b"}                      | id_too_long
    data.dimensions    | {"a":"LONG"}                      | id_too_long
    data.dimensions    | {"a":"\\ud800"}                   | not_json
    data               | -                                 | invalid_event
    data               | "text"                            | invalid_event
    data               | null                              | invalid_event
    data_base64        | null                              | accepted
    data_base64        | "eyJxdWFudGl0eSI6NX0="            | invalid_event
    id                 | ""                                | invalid_event
    id                 | 5                                 | invalid_event
    id                 | null                              | invalid_event
    id                 | -                                 | invalid_event
    id                 | "LONG"                            | id_too_long
    id                 | "😀"                              | accepted
    id                 | "\\ud83d\\ude00"                  | accepted
    id                 | "\\u0000"                         | invalid_event
    id                 | "back\\\\u0000slash"              | accepted
    id                 | "\\ud83d"                         | not_json
    source             | -                                 | invalid_event
    type               | -                                 | invalid_event
    subject            | -                                 | invalid_event
    specversion        | "0.3"                             | invalid_event
    specversion        | -                                 | invalid_event
    organizationid     | -                                 | accepted
    organizationid     | null                              | accepted
    organizationid     | ""                                | invalid_event
    organizationid     | "org_8"                           | wrong_key
    organizationid     | "LONG"                            | id_too_long
    time               | -                                 | accepted
    time               | null                              | accepted
    time               | "2026-11-01T13:00:00+01:00"       | accepted
    time               | "2026-11-01T12:05:00Z"            | accepted
    time               | "2026-11-01T12:05:00.000001Z"     | too_far_ahead
    time               | "2026-09-27T12:00:00Z"            | accepted
    time               | "2026-09-27T11:59:59.999999Z"     | too_old
    time               | "0001-01-01T00:00:00+14:00"       | invalid_time
    time               | "9999-12-31T23:59:59-14:00"       | invalid_time
    time               | "2026-11-01T12:00:00"             | invalid_time
    time               | "2026-02-30T12:00:00Z"            | invalid_time
    time               | "yesterday"                       | invalid_time
    time               | 1793534400                        | invalid_time
    time               | "\\ud83d"                         | not_json
    extension          | {"anything": [1.5, null]}         | accepted
    extension          | "\\ud83d"                         | not_json
""")
def test_one_change_to_a_good_event(path: str, json: str, expected: str) -> None:
    assert reason_of(parse(replaced(path, json))) == expected


@table("""
    changes                                                            | expected
    {"id": "", "data": {"quantity": 1.5}}                              | invalid_event
    {"subject": "LONG", "data": {"quantity": -1}}                      | id_too_long
    {"time": "x", "data": {"quantity": -1}}                            | negative_quantity
    {"time": "x", "organizationid": "org_8"}                           | invalid_time
    {"time": "2020-01-01T00:00:00Z", "organizationid": "org_8"}        | wrong_key
    {"time": "2020-01-01T00:00:00Z", "data": {"quantity": "1.0000001"}}| invalid_quantity
""")
def test_of_several_faults_the_first_in_the_order_of_reasons_is_given(
    changes: str, expected: str
) -> None:
    changed = json.loads(changes.replace("LONG", LONG))
    assert reason_of(parse(cloud_event(**changed))) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "empty_value"),
        (b"", "empty_value"),
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[]", "invalid_event"),
        (b'"text"', "invalid_event"),
        (b" " * 65_537, "too_large"),
        (b"[" * 60_000, "invalid_event"),
        (b'{"data":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "invalid_event"),
        (b'{"data":{"quantity":1,"dimensions":' + b"[" * 900 + b"]" * 900 + b"}}", "invalid_event"),
        (b'{"id":' + b"7" * 5_000 + b',"data":{}}', "invalid_event"),
        (b'{"id":1e999,"data":{}}', "invalid_event"),
    ],
)
def test_bytes_that_are_no_event(value: bytes | None, expected: str) -> None:
    assert reason_of(parse(value)) == expected


def test_nesting_is_refused_and_never_a_recursion_error() -> None:
    deep = b"[" * 20_000 + b"]" * 20_000
    good = msgspec.json.encode(cloud_event())
    for path in (b'"extension":', b'"time":', b'"id":'):
        value = good[:-1] + b"," + path + deep + b"}"
        assert reason_of(parse(value)) == "invalid_event"
    nested = good.replace(b'"quantity":1830', b'"quantity":1830,"website_id":' + deep)
    assert reason_of(parse(nested)) == "invalid_event"


def test_bytes_that_are_not_utf8_are_refused_even_where_no_field_of_ours_reads_them() -> None:
    value = msgspec.json.encode(cloud_event(comment="@@")).replace(b"@@", b"\xff")
    assert reason_of(parse(value)) == "not_json"
    assert reason_of(parse(cloud_event(comment="größer"))) == "accepted"


def test_dimensions_are_counted_and_made_text() -> None:
    twenty = {f"d{n}": n for n in range(20)}
    event = parse(cloud_event(data={"quantity": 1, "dimensions": {**twenty, "d0": True}}))
    assert isinstance(event, UsageEvent)
    assert event.dimensions == {"d0": "true"} | {f"d{n}": str(n) for n in range(1, 20)}
    many = cloud_event(data={"quantity": 1, "dimensions": {**twenty, "d20": "x"}})
    assert reason_of(parse(many)) == "too_many_dimensions"
    digits = cloud_event(data={"quantity": 1, "dimensions": {"d": 10**300}})
    assert reason_of(parse(digits)) == "id_too_long"


def test_the_key_stands_in_for_the_organization() -> None:
    event = parse(cloud_event(organizationid=None))
    assert isinstance(event, UsageEvent)
    assert event.organization_id == ORG


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "invalid_event"),
        (b"", "invalid_event"),
        (b"\xff", "invalid_event"),
        (b"a\0b", "invalid_event"),
        (b"x" * 257, "id_too_long"),
    ],
)
def test_a_key_that_stands_in_must_be_an_id(key: bytes | None, reason: str) -> None:
    assert reason_of(parse(cloud_event(organizationid=None), key=key)) == reason


@pytest.mark.parametrize(("key", "reason"), [(None, "accepted"), (b"\xff", "wrong_key")])
def test_a_key_beside_a_named_organization(key: bytes | None, reason: str) -> None:
    assert reason_of(parse(cloud_event(), key=key)) == reason


def test_an_absent_time_is_the_append_time_and_is_no_content() -> None:
    one = parse(cloud_event(time=None))
    later = Intake(Limits()).parse(
        msgspec.json.encode(cloud_event(time=None)), ORG.encode(), (), T0 + timedelta(hours=1)
    )
    sent = parse(cloud_event(time=T0))
    assert isinstance(one, UsageEvent)
    assert isinstance(later, UsageEvent)
    assert isinstance(sent, UsageEvent)
    assert one.event_time == sent.event_time == T0
    assert one.content == later.content != sent.content
    assert one.identity == later.identity == sent.identity


def test_an_offset_is_another_spelling_of_the_same_instant() -> None:
    here, elsewhere = parse(cloud_event()), parse(replaced("time", '"2026-11-01T13:00:00+01:00"'))
    assert here == elsewhere
    assert isinstance(elsewhere, UsageEvent)
    assert elsewhere.event_time.tzinfo is UTC


def test_spellings_of_a_quantity_are_one_content() -> None:
    spelled = [replaced("data.quantity", text) for text in ("5", '"5"', '"5.0"', '"005.000000"')]
    parsed = [parse(value) for value in spelled]
    assert all(event == parsed[0] for event in parsed)
    assert isinstance(parsed[0], UsageEvent)
    assert parsed[0].quantity_micro == 5_000_000


BINARY: list[tuple[str, bytes | None]] = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"evt_1"),
    ("ce_source", b"editor/eu-1"),
    ("ce_type", b"ai.tokens"),
    ("ce_time", b"2026-11-01T12:00:00Z"),
    ("ce_subject", b"user_42"),
    ("ce_organizationid", ORG.encode()),
    ("content-type", b"application/json"),
]


def test_binary_and_structured_mode_say_the_same() -> None:
    assert parse(b'{"quantity":1830}', headers=BINARY) == parse(cloud_event())


@pytest.mark.parametrize(
    "content_type", [b"application/cloudevents+json", b"APPLICATION/CloudEvents"]
)
def test_the_content_type_of_structured_mode_beats_ce_headers(content_type: bytes) -> None:
    headers = [("ce_id", b"other"), ("Content-Type", content_type)]
    assert parse(cloud_event(), headers=headers) == parse(cloud_event())


def test_headers_of_others_leave_an_event_structured() -> None:
    headers: Headers = [("traceparent", b"00-ab"), ("nothing", None)]
    assert parse(cloud_event(), headers=headers) == parse(cloud_event())


def test_binary_mode_refuses_what_is_missing_or_no_text() -> None:
    data = b'{"quantity":1}'
    assert reason_of(parse(data, headers=[("ce_id", b"\xff")])) == "invalid_event"
    assert reason_of(parse(data, headers=BINARY[1:])) == "invalid_event"
    assert reason_of(parse(data, headers=[("ce_time", b"x"), *BINARY[:4], *BINARY[5:]])) == (
        "invalid_time"
    )
    assert reason_of(parse(b"[1]", headers=BINARY)) == "invalid_event"
    assert reason_of(parse(b"", headers=BINARY)) == "empty_value"


@table("""
    header            | expected
    1793534400000     | accepted
    1790510400000     | too_old
    1793534400001     | invalid_time
    -5                | invalid_time
    soon              | invalid_time
    99999999999999999 | invalid_time
    100000000000000   | invalid_time
    253402300800000   | invalid_time
    1789214399999     | invalid_time
    0                 | invalid_time
""")
def test_a_replay_is_judged_by_its_original_append_time(header: str, expected: str) -> None:
    """T0 is 1793534400 s after 1970."""
    headers = [(ORIGINAL_APPEND_TIME_HEADER, header.encode())]
    event = cloud_event(time=datetime(2026, 9, 27, 12, tzinfo=UTC))
    if expected == "too_old":
        event = cloud_event(time=datetime(2026, 8, 20, tzinfo=UTC))
    assert reason_of(parse(event, headers=headers)) == expected


@pytest.mark.parametrize(
    "header", [b"9" * 400, b"", b"\xff", b"1e3", b" 1", b"\xd9\xa1", b"-0", b"99999999999999"]
)
def test_an_original_append_time_that_is_none_is_refused(header: bytes) -> None:
    assert reason_of(parse(cloud_event(), headers=[(ORIGINAL_APPEND_TIME_HEADER, header)])) == (
        "invalid_time"
    )


def test_an_event_of_1970_is_too_old_whatever_its_header_says() -> None:
    event = cloud_event(time=datetime(1970, 1, 1, tzinfo=UTC))
    assert reason_of(parse(event)) == "too_old"
    assert reason_of(parse(event, headers=[(ORIGINAL_APPEND_TIME_HEADER, b"0")])) == "invalid_time"


def test_a_replay_fills_in_the_original_time_and_is_the_same_content() -> None:
    headers = [(ORIGINAL_APPEND_TIME_HEADER, b"1793000000000")]
    replay, first = parse(cloud_event(time=None), headers=headers), parse(cloud_event(time=None))
    assert isinstance(replay, UsageEvent)
    assert isinstance(first, UsageEvent)
    assert replay.event_time == datetime.fromtimestamp(1793000000, UTC)
    assert replay.appended_at == T0
    assert replay.content == first.content


def test_details_name_the_field_and_show_a_bounded_value() -> None:
    refused = parse(cloud_event(subject="y" * 5_000))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.ID_TOO_LONG
    assert refused.detail.startswith("subject has 5000 characters")
    assert len(refused.detail) < 250


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\nb\0c", "'a\ufffdb\ufffdc'"),
        (b"\xffa", "'\ufffda'"),
        (10**200, "an integer of more than 150 digits"),
        (5, "'5'"),
        ("z" * 100, "'" + "z" * SHOWN_CHARACTERS + "…'"),
    ],
)
def test_a_shown_value_is_printable_and_bounded(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_both_ways_read_a_common_event_alike() -> None:
    value = msgspec.json.encode(
        cloud_event(data={"quantity": "1.5", "website_id": "w", "dimensions": {"b": "1", "a": "2"}})
    )
    thorough = parse_thoroughly(value, ORG.encode(), (), T0, Limits())
    assert parse(value) == thorough


def test_caches_are_emptied_at_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "CACHE_LIMIT_ENTRIES", 2)
    intake = Intake(Limits())
    for number in range(5):
        organization = f"org_{number}"
        value = msgspec.json.encode(cloud_event(organizationid=organization))
        event = intake.parse(value, organization.encode(), (), T0)
        assert isinstance(event, UsageEvent)
        assert event.organization_id == organization
    assert len(intake._organizations) <= 2
    assert len(intake._prefixes) <= 2
