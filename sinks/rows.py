"""Which table a topic goes to, and the JSON row of a record. Pure.

Values of our own topics pass unchanged. A dead letter may be anything, so its bytes go in base64;
whose it is, is looked up for readers as far as the bytes tell.
"""

import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from schemas import headers, topics
from schemas.records import ID_LIMIT_CHARACTERS
from sinks.blocks import StoredRecord

RowEncoder = Callable[[StoredRecord, str], bytes]
"""A record and the cluster's id to one JSON object."""

_encode = msgspec.json.Encoder().encode


class _Identity(msgspec.Struct):
    """What may tell whose a dead letter is: of an event, or of a fact."""

    id: Any = ""
    source: Any = ""
    organizationid: Any = ""
    organization_id: Any = ""


_decode_identity = msgspec.json.Decoder(_Identity).decode


def encode_unchanged(record: StoredRecord, _cluster_id: str) -> bytes:
    """The value as the worker wrote it; empty for a tombstone, which is then refused."""
    return record.value or b""


def encode_dead_letter(record: StoredRecord, cluster_id: str) -> bytes:
    """A row of `dead_letter_rows`."""
    originals, ours = headers.take_apart(record.headers)
    identity = _identity(record.value or b"", dict(originals))
    appended_ms = _number(ours.get(headers.APPEND_TIME_MS), record.timestamp)
    return _encode(
        {
            "cluster_id": cluster_id,
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "recorded_at": _time(record.timestamp),
            "organization_id": _text(record.key) or identity["organization_id"],
            "source": identity["source"],
            "event_id": identity["event_id"],
            "reason": _text(ours.get(headers.REASON)),
            "detail": (ours.get(headers.DETAIL) or b"").decode("utf-8", "replace"),
            "input_topic": _text(ours.get(headers.TOPIC)),
            "input_partition": _number(ours.get(headers.PARTITION), -1),
            "input_offset": _number(ours.get(headers.OFFSET), -1),
            "appended_at": _time(appended_ms),
            "key_base64": b64encode(record.key or b"").decode(),
            "value_base64": b64encode(record.value or b"").decode(),
            "headers": [
                {"name": _json_text(name), "value_base64": b64encode(value or b"").decode()}
                for name, value in originals
            ],
        }
    )


def encode_reject(record: StoredRecord, cluster_id: str, sent: bytes, error: str) -> bytes:
    """A row of `sink_rejects`: what was sent, and what ClickHouse said."""
    return _encode(
        {
            "cluster_id": cluster_id,
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "appended_at": _time(record.timestamp),
            "error": error,
            "value_base64": b64encode(sent).decode(),
        }
    )


TARGETS: Final[dict[str, tuple[str, RowEncoder]]] = {
    topics.FACTS_APPLIED: ("facts_applied_rows", encode_unchanged),
    topics.LEDGER: ("ledger_rows", encode_unchanged),
    topics.USAGE_RATED: ("usage_rated_rows", encode_unchanged),
    topics.DEAD_LETTERS: ("dead_letter_rows", encode_dead_letter),
}
"""Table and encoder by unprefixed topic, in the order in which a block is inserted: facts first, so
that a deletion is never later than the usage that follows it."""

REJECTS_TABLE: Final = "sink_rejects"

LATEST_MS: Final = 10_413_791_999_000
"""The end of the year 2299, as far as ClickHouse's times go."""


def _json_text(name: str) -> msgspec.Raw:
    """A header's name as JSON; ClickHouse takes its bytes also where they are no UTF-8."""
    return msgspec.Raw(json.dumps(name, ensure_ascii=False).encode("utf-8", "surrogateescape"))


def _identity(value: bytes, originals: dict[str, bytes | None]) -> dict[str, str]:
    try:
        identity = _decode_identity(value)
    except (ValueError, RecursionError):
        identity = _Identity()
    event_id, source = _short(identity.id), _short(identity.source)
    return {
        "event_id": _text(originals.get("ce_id")) or event_id,
        "source": _text(originals.get("ce_source")) or source,
        "organization_id": _text(originals.get("ce_organizationid"))
        or _short(identity.organizationid)
        or _short(identity.organization_id),
    }


def _text(raw: bytes | None) -> str:
    """Text of the length of an id, empty where the bytes are none."""
    try:
        return _short((raw or b"").decode())
    except UnicodeDecodeError:
        return ""


def _short(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= ID_LIMIT_CHARACTERS else ""


def _number(raw: bytes | None, otherwise: int) -> int:
    """An Int64, or `otherwise`."""
    digits = (raw or b"").decode("ascii", "replace")
    return (
        int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 18 else otherwise
    )


def _time(milliseconds: int) -> str:
    milliseconds = min(max(milliseconds, 0), LATEST_MS)
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
