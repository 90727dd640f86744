"""Bytes to a usage event, the thorough way: both CloudEvents modes, every refusal explained.

All faults of a record are gathered; the reason given is the one that comes first in `Reason`.
"""

from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Raw, ValidationError, json

from schemas.reasons import Reason
from schemas.records import DIMENSIONS_LIMIT, ID_LIMIT_CHARACTERS
from schemas.topics import ORIGINAL_APPEND_TIME_HEADER, USAGE_VALUE_LIMIT_BYTES
from streams.decisions.digests import content_digest, identity
from streams.decisions.events import EPOCH, Headers, Limits, UsageEvent
from streams.decisions.outcomes import Rejected, shown
from streams.decisions.quantities import quantity_from_json, quantity_from_text

STRUCTURED_PREFIX: Final = b"application/cloudevents"
MILLISECONDS_DIGITS: Final = 14
"""Up to the year 5138: a datetime holds every such number."""
_PRECEDENCE: Final = {reason: place for place, reason in enumerate(Reason)}
_EMPTY: Final = Raw(b"")

_decode_members = json.Decoder(dict[str, Raw]).decode
_decode_raw = json.Decoder(Raw).decode
_decode_any = json.Decoder().decode

_Refuse = Callable[[Reason, str], None]


class _Attributes(msgspec.Struct):
    """A CloudEvent's attributes in either mode; `data` and `quantity` stay JSON text."""

    values: dict[str, Any]
    data: dict[str, Raw]


def parse_thoroughly(
    value: bytes | None,
    key: bytes | None,
    headers: Headers,
    appended_at: datetime,
    limits: Limits,
) -> UsageEvent | Rejected:
    """The event of a record, or the first reason, in precedence, why it is none."""
    if not value:
        return Rejected(Reason.EMPTY_VALUE, "The record has no value.")
    if len(value) > USAGE_VALUE_LIMIT_BYTES:
        return Rejected(
            Reason.TOO_LARGE,
            f"The value has {len(value)} bytes; at most {USAGE_VALUE_LIMIT_BYTES} are accepted.",
        )
    if not is_utf8(value):
        return Rejected(Reason.NOT_JSON, f"The value is not UTF-8: {shown(value)}.")
    known_headers = {name.lower(): text for name, text in headers if text is not None}
    attributes = _read_attributes(value, known_headers)
    if isinstance(attributes, Rejected):
        return attributes
    faults: list[Rejected] = []

    def refuse(reason: Reason, detail: str) -> None:
        faults.append(Rejected(reason, detail))

    event = _read_event(attributes, key, known_headers, appended_at, limits, refuse)
    return min(faults, key=lambda fault: _PRECEDENCE[fault.reason]) if faults else event


def key_text(key: bytes) -> str | None:
    """The key as an id: None where it is not UTF-8 or holds what no id may hold."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def is_utf8(value: bytes) -> bool:
    """Whether the bytes can be text at all: also those that no field of ours reads."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_attributes(value: bytes, headers: dict[str, bytes]) -> _Attributes | Rejected:
    content_type = headers.get("content-type", b"").strip().lower()
    binary = not content_type.startswith(STRUCTURED_PREFIX) and any(
        name.startswith("ce_") for name in headers
    )
    members = _read_members(value, "The data" if binary else "The value")
    if isinstance(members, Rejected):
        return members
    values: dict[str, Any] = {}
    if binary:
        for name, raw in headers.items():
            if name.startswith("ce_"):
                try:
                    values[name[3:]] = raw.decode()
                except UnicodeDecodeError:
                    return Rejected(
                        Reason.INVALID_EVENT, f"Header {shown(name)} is not UTF-8: {shown(raw)}."
                    )
        return _Attributes(values, members)
    for name in ("specversion", "id", "source", "type", "subject", "time", "organizationid"):
        values[name] = _read_any(members.get(name, _EMPTY))
        if isinstance(values[name], Rejected):
            return values[name]  # type: ignore[no-any-return]
    data = _read_data(members)
    if isinstance(data, Rejected):
        return data
    return _Attributes(values, data)


def _read_data(members: dict[str, Raw]) -> dict[str, Raw] | Rejected:
    """The payload of a structured event: JSON as it is, or JSON text in base64."""
    data, encoded = members.get("data", _EMPTY), _read_any(members.get("data_base64", _EMPTY))
    if encoded is None:
        if not bytes(data):
            return Rejected(Reason.INVALID_EVENT, "data is missing.")
        return _read_members(bytes(data), "data")
    if bytes(data) not in (b"", b"null"):
        return Rejected(
            Reason.INVALID_EVENT, "There are data and data_base64; an event has one of the two."
        )
    if isinstance(encoded, Rejected):
        return encoded
    try:
        decoded = b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        return Rejected(
            Reason.INVALID_EVENT, f"data_base64 is {shown(encoded)}; it must be base64 of JSON."
        )
    if not is_utf8(decoded):
        return Rejected(Reason.NOT_JSON, f"data_base64 is not UTF-8: {shown(decoded)}.")
    return _read_members(decoded, "data_base64")


def _read_members(raw: bytes, name: str) -> dict[str, Raw] | Rejected:
    try:
        try:
            return _decode_members(raw)
        except ValidationError:
            _decode_raw(raw)
    except RecursionError:
        return Rejected(Reason.INVALID_EVENT, f"{name} is nested too deeply.")
    except ValueError as error:
        return Rejected(Reason.NOT_JSON, f"{name} is not JSON: {error}.")
    return Rejected(Reason.INVALID_EVENT, f"{name} is not a JSON object: {shown(raw)}.")


def _read_any(raw: Raw) -> Any:
    """A JSON value, None where absent, or Rejected: numbers may be beyond all bounds."""
    text = bytes(raw)
    if not text:
        return None
    try:
        return _decode_any(text)
    except (ValidationError, RecursionError) as error:
        return Rejected(Reason.INVALID_EVENT, f"A value is {shown(text)}: {error}.")


def _read_event(
    attributes: _Attributes,
    key: bytes | None,
    headers: dict[str, bytes],
    appended_at: datetime,
    limits: Limits,
    refuse: _Refuse,
) -> UsageEvent:
    """The event; worth nothing where anything was refused on the way."""
    values, data = attributes.values, attributes.data
    if values.get("specversion") != "1.0":
        refuse(
            Reason.INVALID_EVENT,
            f"specversion is {shown(values.get('specversion'))}; only '1.0' is understood.",
        )
    event_id = _read_id("id", values.get("id"), refuse)
    source = _read_id("source", values.get("source"), refuse)
    meter = _read_id("type", values.get("type"), refuse)
    subject = _read_id("subject", values.get("subject"), refuse)
    website = _read_any(data.get("website_id", _EMPTY))
    website_id = "" if website in (None, "") else _read_id("data.website_id", website, refuse)
    dimensions = _read_dimensions(data.get("dimensions", _EMPTY), refuse)
    quantity_micro = _read_quantity(data.get("quantity", _EMPTY), refuse)
    judged_at = _read_original_append_time(headers, appended_at, limits, refuse)
    sent_time = _read_time(values.get("time"), refuse)
    organization_id = _read_organization(values.get("organizationid"), key, refuse)
    event_time = judged_at if sent_time is None else sent_time
    _check_age(event_time, judged_at, limits, refuse)
    return UsageEvent(
        organization_id,
        source,
        event_id,
        meter,
        subject,
        website_id,
        dimensions,
        event_time,
        appended_at,
        quantity_micro,
        identity(organization_id, source, event_id),
        content_digest(meter, subject, sent_time, quantity_micro, website_id, dimensions),
    )


def _read_id(name: str, value: Any, refuse: _Refuse) -> str:
    if value is None:
        refuse(Reason.INVALID_EVENT, f"{name} is missing.")
    elif isinstance(value, Rejected):
        refuse(value.reason, value.detail)
    elif not isinstance(value, str):
        refuse(Reason.INVALID_EVENT, f"{name} is {shown(value)}; it must be a string.")
    elif not value:
        refuse(Reason.INVALID_EVENT, f"{name} is empty.")
    elif "\0" in value:
        refuse(Reason.INVALID_EVENT, f"{name} is {shown(value)}; it holds a NUL character.")
    elif len(value) > ID_LIMIT_CHARACTERS:
        refuse(
            Reason.ID_TOO_LONG,
            f"{name} has {len(value)} characters; at most {ID_LIMIT_CHARACTERS} are accepted: "
            f"{shown(value)}.",
        )
    else:
        return value
    return ""


def _read_dimensions(raw: Raw, refuse: _Refuse) -> dict[str, str]:
    value = _read_any(raw)
    if value is None:
        return {}
    if isinstance(value, Rejected):
        refuse(value.reason, value.detail)
        return {}
    if not isinstance(value, dict):
        refuse(
            Reason.INVALID_EVENT, f"data.dimensions is {shown(value)}; it must be a JSON object."
        )
        return {}
    if len(value) > DIMENSIONS_LIMIT:
        refuse(
            Reason.TOO_MANY_DIMENSIONS,
            f"data.dimensions has {len(value)} entries; at most {DIMENSIONS_LIMIT} are accepted.",
        )
        return {}
    dimensions = {}
    for name, member in value.items():
        key = _read_id("A name in data.dimensions", name, refuse)
        dimensions[key] = _read_dimension(f"data.dimensions[{shown(name)}]", member, refuse)
    return dimensions


def _read_dimension(name: str, value: Any, refuse: _Refuse) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        value = str(value)
    if not isinstance(value, str):
        refuse(
            Reason.INVALID_EVENT,
            f"{name} is {shown(value)}; it must be a string, an integer or a boolean.",
        )
        return ""
    return value and _read_id(name, value, refuse)


def _read_quantity(raw: Raw, refuse: _Refuse) -> int:
    text = bytes(raw)
    if text[:1] == b'"':
        quantity = quantity_from_text(_decode_any(text))
    else:
        quantity = quantity_from_json(text)
    if isinstance(quantity, Rejected):
        refuse(quantity.reason, quantity.detail)
        return 0
    return quantity


def _read_original_append_time(
    headers: dict[str, bytes], appended_at: datetime, limits: Limits, refuse: _Refuse
) -> datetime:
    """The append time that the age is judged by: a replay brings that of the first try."""
    raw = headers.get(ORIGINAL_APPEND_TIME_HEADER)
    if raw is None:
        return appended_at
    if raw.isdigit() and len(raw) <= MILLISECONDS_DIGITS:
        original = EPOCH + timedelta(milliseconds=int(raw))
        if timedelta(0) <= appended_at - original <= limits.max_replay_age:
            return original
    refuse(
        Reason.INVALID_TIME,
        f"Header {ORIGINAL_APPEND_TIME_HEADER} is {shown(raw)}; it must be a number of "
        "milliseconds since 1970, not after the record's own append time and at most "
        f"{limits.max_replay_age.days} days before it.",
    )
    return appended_at


def _read_time(value: Any, refuse: _Refuse) -> datetime | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            time = msgspec.convert(value, datetime)
            if time.tzinfo is not None:
                return time.astimezone(UTC)
    except (ValidationError, OverflowError):
        pass
    refuse(
        Reason.INVALID_TIME,
        f"time is {shown(value)}; it must be RFC 3339 with an offset, like "
        "'2026-11-01T12:00:00.123Z'.",
    )
    return None


def _read_organization(value: Any, key: bytes | None, refuse: _Refuse) -> str:
    if value is None and not key:
        refuse(
            Reason.INVALID_EVENT, "organizationid is missing and the record has no key to tell it."
        )
        return ""
    text = key_text(key) if key else None
    if value is None:
        if text is None:
            refuse(
                Reason.INVALID_EVENT,
                f"organizationid is missing and the key {shown(key)} cannot be one.",
            )
            return ""
        return _read_id("The key (there is no organizationid)", text, refuse)
    organization_id = _read_id("organizationid", value, refuse)
    if organization_id and key and text != organization_id:
        refuse(
            Reason.WRONG_KEY,
            f"organizationid is {shown(organization_id)}, but the record's key is {shown(key)}.",
        )
    return organization_id


def _check_age(event_time: datetime, judged_at: datetime, limits: Limits, refuse: _Refuse) -> None:
    if judged_at - event_time > limits.max_event_age:
        refuse(
            Reason.TOO_OLD,
            f"time is {event_time.isoformat()}, more than {limits.max_event_age.days} days before "
            f"the record was appended ({judged_at.isoformat()}).",
        )
    if event_time - judged_at > limits.max_ahead:
        refuse(
            Reason.TOO_FAR_AHEAD,
            f"time is {event_time.isoformat()}, more than {limits.max_ahead} after the record was "
            f"appended ({judged_at.isoformat()}).",
        )
