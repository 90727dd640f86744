"""The model's reading of a usage record: the standard library's JSON, decimals, and step by step.

Each step raises `Refused`; the steps are in the order of the reasons, so the first is the answer.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from schemas.reasons import Reason
from schemas.records import DIMENSIONS_LIMIT, ID_LIMIT_CHARACTERS, INT64_MAX
from schemas.settings import FUTURE_LIMIT_S
from schemas.topics import ORIGINAL_APPEND_TIME_HEADER, USAGE_VALUE_LIMIT_BYTES

RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2}))"
)
DEDUPE_WINDOW_DAYS = 50
ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time", "organizationid")

Headers = list[tuple[str, bytes | None]]


class Refused(Exception):
    """The record goes to the dead letters."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Number:
    """A JSON number as it was written."""

    text: str


@dataclass(frozen=True)
class Usage:
    """A usage event as the model understands it."""

    organization_id: str
    source: str
    event_id: str
    meter: str
    subject: str
    website_id: str
    dimensions: dict[str, str]
    event_time: datetime
    sent_time: datetime | None
    quantity_micro: int

    @property
    def identity(self) -> tuple[str, str, str]:
        return self.organization_id, self.source, self.event_id

    @property
    def content(self) -> tuple[Any, ...]:
        return (
            self.meter,
            self.subject,
            self.sent_time,
            self.quantity_micro,
            self.website_id,
            tuple(sorted(self.dimensions.items())),
        )


def refuse_if(condition: bool, reason: Reason) -> None:
    if condition:
        raise Refused(reason)


def read_json(raw: bytes, *, malformed: Reason = Reason.NOT_JSON) -> Any:
    """JSON with its numbers as text. Raises Refused."""

    def no_constant(text: str) -> None:
        raise ValueError(text)

    try:
        document = json.loads(
            raw.decode("utf-8"),
            parse_int=Number,
            parse_float=Number,
            parse_constant=no_constant,
        )
        texts = _texts(document)
    except ValueError:
        raise Refused(malformed) from None
    except RecursionError:
        raise Refused(Reason.INVALID_EVENT) from None
    # Half of a surrogate pair is no character, so the bytes were no JSON text.
    refuse_if(any("\ud800" <= c <= "\udfff" for text in texts for c in text), malformed)
    return document


def read_instant(text: str) -> datetime:
    """RFC 3339 with an offset, rounded half up to microseconds, in UTC. Raises ValueError."""
    match = RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    offset = timedelta(0)
    if not match[8]:
        hours, minutes = int(match[10]), int(match[11])
        if hours > 23 or minutes > 59:
            raise ValueError(text)
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if match[9] == "-" else 1)
    # Seven digits decide how the sixth is rounded.
    microseconds = (int((match[7] or "")[:7].ljust(7, "0")) + 5) // 10
    whole = datetime(year, month, day, hour, minute, second, tzinfo=timezone(offset))
    try:
        return (whole + timedelta(microseconds=microseconds)).astimezone(UTC)
    except OverflowError:
        raise ValueError(text) from None


def read_usage(
    value: bytes | None,
    key: bytes | None,
    headers: Headers,
    appended_at: datetime,
    max_event_age: timedelta,
) -> Usage:
    """The event of a record. Raises Refused with the first reason that holds."""
    refuse_if(value is not None and len(value) > USAGE_VALUE_LIMIT_BYTES, Reason.TOO_LARGE)
    if not value:
        raise Refused(Reason.EMPTY_VALUE)
    by_name = {name.lower(): text for name, text in headers if text is not None}
    attributes, data = _attributes_and_data(value, by_name)
    if attributes["organizationid"] is None:
        attributes["organizationid"] = _organization_of_key(key)
    ids: dict[str, Any] = {name: attributes[name] for name in ("id", "source", "type", "subject")}
    ids["organizationid"] = attributes["organizationid"]
    website_id: Any = data.get("website_id")
    dimensions: Any = data.get("dimensions")
    dimensions = {} if dimensions is None else dimensions
    _check_shape(attributes, ids, website_id, dimensions)
    too_many = len(dimensions) > DIMENSIONS_LIMIT
    texts = [*ids.values(), website_id or ""]
    if not too_many:
        texts += [*dimensions, *map(_text, dimensions.values())]
    refuse_if(any(len(text) > ID_LIMIT_CHARACTERS for text in texts), Reason.ID_TOO_LONG)
    refuse_if(too_many, Reason.TOO_MANY_DIMENSIONS)
    quantity_micro = _quantity_micro(data.get("quantity"))
    judged_at = _original_append_time(by_name.get(ORIGINAL_APPEND_TIME_HEADER), appended_at)
    sent_time = _sent_time(attributes.get("time"))
    event_time = sent_time or judged_at
    wrong_key = bool(key) and key != ids["organizationid"].encode()
    refuse_if(wrong_key, Reason.WRONG_KEY)
    refuse_if(event_time < judged_at - max_event_age, Reason.TOO_OLD)
    refuse_if(event_time > judged_at + timedelta(seconds=FUTURE_LIMIT_S), Reason.TOO_FAR_AHEAD)
    return Usage(
        ids["organizationid"],
        ids["source"],
        ids["id"],
        ids["type"],
        ids["subject"],
        website_id or "",
        {name: _text(raw) for name, raw in dimensions.items()},
        event_time,
        sent_time,
        quantity_micro,
    )


def _attributes_and_data(
    value: bytes, headers: dict[str, bytes]
) -> tuple[dict[str, Any], dict[str, Any]]:
    structured = headers.get("content-type", b"").strip().lower()[:23] == b"application/cloudevents"
    names = [name for name in headers if name.startswith("ce_")]
    if structured or not names:
        document = read_json(value)
        refuse_if(not isinstance(document, dict), Reason.INVALID_EVENT)
        attributes = {name: document.get(name) for name in ATTRIBUTES}
        data = document.get("data")
    else:
        data = read_json(value)
        try:
            attributes = {name[3:]: headers[name].decode() for name in names}
        except UnicodeDecodeError:
            raise Refused(Reason.INVALID_EVENT) from None
        attributes = {name: attributes.get(name) for name in ATTRIBUTES}
    refuse_if(not isinstance(data, dict), Reason.INVALID_EVENT)
    return attributes, data


def _texts(value: Any) -> list[str]:
    """Every string within a document."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for each in value.values() for text in _texts(each))]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return []


def _organization_of_key(key: bytes | None) -> str:
    try:
        return (key or b"").decode()
    except UnicodeDecodeError:
        raise Refused(Reason.INVALID_EVENT) from None


def _check_shape(
    attributes: dict[str, Any], ids: dict[str, Any], website_id: Any, dimensions: Any
) -> None:
    refuse_if(attributes.get("specversion") != "1.0", Reason.INVALID_EVENT)
    for each in ids.values():
        refuse_if(not isinstance(each, str) or not each or "\0" in each, Reason.INVALID_EVENT)
    if website_id is not None:
        refuse_if(not isinstance(website_id, str) or "\0" in website_id, Reason.INVALID_EVENT)
    refuse_if(not isinstance(dimensions, dict), Reason.INVALID_EVENT)
    if len(dimensions) > DIMENSIONS_LIMIT:
        return
    for name, value in dimensions.items():
        refuse_if(not name or "\0" in name, Reason.INVALID_EVENT)
        refuse_if(isinstance(value, list | dict) or value is None, Reason.INVALID_EVENT)
        if isinstance(value, Number):
            refuse_if(re.fullmatch("-?[0-9]+", value.text) is None, Reason.INVALID_EVENT)
        refuse_if("\0" in _text(value), Reason.INVALID_EVENT)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Number):
        return "0" if value.text == "-0" else value.text
    return str(value)


def _quantity_micro(quantity: Any) -> int:
    if isinstance(quantity, Number):
        refuse_if(re.fullmatch("-?[0-9]+", quantity.text) is None, Reason.FLOAT_QUANTITY)
        exact = Decimal(quantity.text)
    else:
        refuse_if(not isinstance(quantity, str), Reason.INVALID_QUANTITY)
        refuse_if(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", quantity) is None, Reason.INVALID_QUANTITY)
        decimals = quantity.partition(".")[2].rstrip("0")
        refuse_if(len(decimals) > 6, Reason.INVALID_QUANTITY)
        exact = Decimal(quantity)
    refuse_if(exact < 0, Reason.NEGATIVE_QUANTITY)
    refuse_if(exact > Decimal(INT64_MAX).scaleb(-6), Reason.QUANTITY_TOO_LARGE)
    return int(exact.scaleb(6))


def _original_append_time(raw: bytes | None, appended_at: datetime) -> datetime:
    if raw is None:
        return appended_at
    refuse_if(re.fullmatch(rb"[0-9]{1,14}", raw) is None, Reason.INVALID_TIME)
    original = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(raw))
    earliest = appended_at - timedelta(days=DEDUPE_WINDOW_DAYS)
    refuse_if(not earliest <= original <= appended_at, Reason.INVALID_TIME)
    return original


def _sent_time(text: Any) -> datetime | None:
    if text is None:
        return None
    refuse_if(not isinstance(text, str), Reason.INVALID_TIME)
    try:
        return read_instant(text)
    except ValueError:
        raise Refused(Reason.INVALID_TIME) from None
