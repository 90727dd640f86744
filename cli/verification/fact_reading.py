"""The model's reading of a fact: a table of what each may say, and the rules for each value."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from zoneinfo import available_timezones

from cli.verification.parsing import Number, Refused, read_instant, read_json, refuse_if
from schemas.bounds import LISTED_ID_BYTES_MAX
from schemas.reasons import Reason
from schemas.records import INT64_MAX
from schemas.topics import CREDITS, MEMBERSHIPS

REQUIRED: Final = object()

_SETTINGS: Final[dict[str, Any]] = {
    "funding_group": "member",
    "credit_price_micro": 10_000,
    "currency": "USD",
    "billing_anchor_day": 1,
    "time_zone": "UTC",
}
_POOL: Final = {"pool_kind": REQUIRED, "pool_id": REQUIRED, "amount_micro": REQUIRED}
FIELDS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    MEMBERSHIPS: {
        "organization_created": _SETTINGS,
        "organization_settings": _SETTINGS,
        "member_assigned": {"member_id": REQUIRED, "group_id": REQUIRED, "how": REQUIRED},
        "member_removed": {"member_id": REQUIRED},
        "member_alias": {"member_id": REQUIRED, "alias_hash": REQUIRED, "removed": False},
        "group_created": {"group_id": REQUIRED},
        "group_renamed": {"group_id": REQUIRED},
        "group_deleted": {"group_id": REQUIRED},
        "website_assigned": {"website_id": REQUIRED, "group_id": REQUIRED},
        "price_set": {
            "meter": REQUIRED,
            "micro_per_million_units": REQUIRED,
            "book": "organization",
        },
    },
    CREDITS: {
        "granted": {
            **_POOL,
            "grant_id": REQUIRED,
            "kind": REQUIRED,
            "source": REQUIRED,
            "expires_at": None,
            "awaiting_payment": False,
        },
        "revoked": {"grant_id": REQUIRED, "amount_micro": REQUIRED, "why": REQUIRED},
        "adjusted": {**_POOL, "why": REQUIRED},
    },
}
CHOICES: Final = {
    "funding_group": ("member", "website"),
    "pool_kind": ("website", "group"),
    "kind": ("monthly", "one_time"),
    "how": ("scim", "api", "csv", "manual"),
    "book": ("organization", "default"),
}
INTEGERS: Final = (
    "credit_price_micro",
    "billing_anchor_day",
    "micro_per_million_units",
    "amount_micro",
)
BOOLEANS: Final = ("removed", "awaiting_payment")
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Fact:
    """A fact as the model understands it; `says` has every field, defaults included."""

    topic: str
    organization_id: str
    version: int
    effective_at: datetime
    recorded_at: datetime
    type: str
    says: dict[str, Any]

    @property
    def content(self) -> tuple[Any, ...]:
        """What makes a repetition the same; when it was recorded does not matter."""
        return self.effective_at, self.type, tuple(sorted(self.says.items(), key=str))

    def __getitem__(self, name: str) -> Any:
        return self.says[name]


def read_fact(topic: str, value: bytes | None, key: bytes | None) -> Fact:
    """The fact of a record, its types checked. Raises Refused."""
    refuse_if(not value, Reason.EMPTY_VALUE)
    try:
        document = read_json(value or b"", malformed=Reason.INVALID_FACT)
        fact = _read_document(topic, document)
    except (KeyError, TypeError, ValueError, AttributeError, Refused):
        raise Refused(Reason.INVALID_FACT) from None
    refuse_if(not 1 <= len(fact.organization_id) <= 256, Reason.INVALID_FACT)
    refuse_if("\0" in fact.organization_id, Reason.INVALID_FACT)
    refuse_if(not 1 <= fact.version <= INT64_MAX, Reason.INVALID_FACT)
    refuse_if(key != fact.organization_id.encode(), Reason.WRONG_KEY)
    return fact


def _read_document(topic: str, document: Any) -> Fact:
    names = {"organization_id", "version", "recorded_at", "effective_at", "fact"}
    if set(document) != names:
        raise ValueError("fields")
    says = dict(document["fact"])
    kind = _string(says.pop("type"))
    fields = FIELDS[topic][kind]
    if not set(says) <= set(fields):
        raise ValueError("unknown field")
    complete = {name: _typed(name, says.get(name, default)) for name, default in fields.items()}
    return Fact(
        topic,
        _string(document["organization_id"]),
        _integer(document["version"]),
        read_instant(document["effective_at"]),
        read_instant(document["recorded_at"]),
        kind,
        complete,
    )


def _typed(name: str, raw: Any) -> Any:
    if name in CHOICES:
        if raw not in CHOICES[name]:
            raise ValueError(name)
        return raw
    if name in INTEGERS:
        return _integer(raw)
    if name in BOOLEANS:
        if not isinstance(raw, bool):
            raise ValueError(name)
        return raw
    if name == "expires_at":
        return None if raw is None else read_instant(raw)
    return _string(raw)


def _string(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError("not a string")
    return raw


def _integer(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if not isinstance(raw, Number) or re.fullmatch("-?[0-9]+", raw.text) is None:
        raise TypeError("not an integer")
    return int(raw.text)


def check_values(fact: Fact) -> None:
    """Whether the fact makes sense by itself. Raises Refused (the version is consumed)."""
    invalid = Reason.INVALID_FACT
    says = fact.says
    for at in (fact.effective_at, fact.recorded_at, says.get("expires_at")):
        refuse_if(at is not None and not _FIRST <= at < _LAST, invalid)
    for name, value in says.items():
        if isinstance(value, str):
            refuse_if(len(value) > 256 or "\0" in value, invalid)
            refuse_if(not value and name != "why", invalid)
        if name in ("member_id", "group_id", "grant_id"):
            text = json.dumps(value, ensure_ascii=False).encode()
            refuse_if(len(text) > LISTED_ID_BYTES_MAX + len('""'), invalid)
    if fact.type in ("organization_created", "organization_settings"):
        refuse_if(not 0 <= says["credit_price_micro"] <= INT64_MAX, invalid)
        refuse_if(re.fullmatch("[A-Z]{3}", says["currency"]) is None, invalid)
        refuse_if(not 1 <= says["billing_anchor_day"] <= 31, invalid)
        _check_zone(says["time_zone"])
    if fact.type == "price_set":
        refuse_if(not 0 <= says["micro_per_million_units"] <= INT64_MAX, invalid)
    if fact.type in ("granted", "revoked"):
        refuse_if(says["amount_micro"] <= 0, invalid)
    if fact.type == "adjusted":
        refuse_if(says["amount_micro"] == 0, invalid)
    if fact.type == "granted":
        refuse_if(says["grant_id"].startswith(("adjustment:", "group-deleted:")), invalid)
        expires_at = says["expires_at"]
        refuse_if(says["kind"] == "monthly" and expires_at is None, invalid)
        refuse_if(expires_at is not None and expires_at <= fact.effective_at, invalid)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime", "Factory"})


def _check_zone(name: str) -> None:
    if name not in _zones():
        raise Refused(Reason.INVALID_FACT)
