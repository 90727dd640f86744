"""Bytes to a usage event, the quick way; what is not of the common shape goes to `envelopes`.

The common shape is a structured CloudEvent in plain UTC whose dimensions are strings. This way
accepts or passes on, it never refuses: so a refusal and its wording come from one place, and
what both ways accept they read alike (a property that the tests check).
"""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, json
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from schemas.records import DIMENSIONS_LIMIT, ID_LIMIT_CHARACTERS, INT64_MAX, MICRO
from schemas.topics import USAGE_VALUE_LIMIT_BYTES
from streams.decisions.digests import encode_content, identity_prefix
from streams.decisions.envelopes import is_utf8, key_text, parse_thoroughly
from streams.decisions.events import EPOCH, Headers, Limits, UsageEvent
from streams.decisions.outcomes import Rejected
from streams.decisions.quantities import quantity_from_text

CACHE_LIMIT_ENTRIES: Final = 20_000
"""A cache that has grown so far is emptied; an entry holds at most 512 characters."""

_Id = Annotated[str, Meta(min_length=1, max_length=ID_LIMIT_CHARACTERS)]
_Text = Annotated[str, Meta(max_length=ID_LIMIT_CHARACTERS)]


BACKSLASH: Final = 0x5C
"""As a number: searching for one byte is four times as quick as for a string of one."""


class _CommonData(Struct, gc=False):
    quantity: Annotated[int, Meta(ge=0, le=INT64_MAX // MICRO)] | str
    website_id: _Text = ""
    dimensions: Annotated[dict[_Id, _Text], Meta(max_length=DIMENSIONS_LIMIT)] = {}


class _CommonEnvelope(Struct, gc=False):
    specversion: Literal["1.0"]
    id: _Id
    source: _Id
    type: _Id
    subject: _Id
    data: _CommonData
    time: datetime | None = None
    organizationid: _Id | None = None
    data_base64: None = None
    """Any other value fails to decode, so that such an event is read thoroughly."""


_decode_common = json.Decoder(_CommonEnvelope).decode


class Intake:
    """Parses usage records; holds two bounded caches of texts and otherwise nothing."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._appended_at = self._earliest = self._latest = EPOCH
        self._organizations: dict[bytes, str] = {}
        self._prefixes: dict[tuple[str, str], str] = {}

    def parse(
        self, value: bytes | None, key: bytes | None, headers: Headers, appended_at: datetime
    ) -> UsageEvent | Rejected:
        """The event of a record, or why it is none. `appended_at` is in UTC.

        Records of a batch should share one `appended_at` object where their times are equal.
        """
        if headers or not value or not key or len(value) > USAGE_VALUE_LIMIT_BYTES:
            return parse_thoroughly(value, key, headers, appended_at, self._limits)
        try:
            sent = _decode_common(value)
        except (ValueError, RecursionError):
            return parse_thoroughly(value, key, headers, appended_at, self._limits)
        if appended_at is not self._appended_at:
            self._open_window(appended_at)
        sent_time = sent.time
        organization_id = self._organizations.get(key) or self._learn_organization(key)
        if (
            (
                sent_time is not None
                and not (sent_time.tzinfo is UTC and self._earliest <= sent_time <= self._latest)
            )
            or (sent.organizationid != organization_id and sent.organizationid is not None)
            or not organization_id
            or (BACKSLASH in value and b"\\u0000" in value)
            or not (value.isascii() or is_utf8(value))
        ):
            return parse_thoroughly(value, key, headers, appended_at, self._limits)
        data = sent.data
        quantity = data.quantity
        # `__class__` and not isinstance: that is slow for classes with a metaclass, as structs are.
        if quantity.__class__ is int:
            quantity_micro: int = quantity * MICRO
        else:
            exact = quantity_from_text(quantity)  # type: ignore[arg-type]
            if isinstance(exact, Rejected):
                return parse_thoroughly(value, key, headers, appended_at, self._limits)
            quantity_micro = exact
        source = sent.source
        prefix = self._prefixes.get((organization_id, source))
        if prefix is None:
            prefix = self._learn_prefix(organization_id, source)
        website_id, dimensions = data.website_id, data.dimensions
        # The two digests of `digests`, spelled out: a call costs as much as the hash.
        said = (sent.type, sent.subject, sent_time, quantity_micro, website_id, dimensions)
        return UsageEvent(
            organization_id,
            source,
            sent.id,
            sent.type,
            sent.subject,
            website_id,
            dimensions,
            sent_time or appended_at,
            appended_at,
            quantity_micro,
            xxh3_128_digest((prefix + sent.id).encode()),
            xxh3_64_intdigest(encode_content(said)) or 1,
        )

    def _open_window(self, appended_at: datetime) -> None:
        self._appended_at = appended_at
        self._earliest = appended_at - self._limits.max_event_age
        self._latest = appended_at + self._limits.max_ahead

    def _learn_organization(self, key: bytes) -> str:
        """The key as an organization's id; empty where it cannot be one."""
        organization_id = key_text(key)
        if not organization_id or len(organization_id) > ID_LIMIT_CHARACTERS:
            return ""
        if len(self._organizations) >= CACHE_LIMIT_ENTRIES:
            self._organizations.clear()
        self._organizations[key] = organization_id
        return organization_id

    def _learn_prefix(self, organization_id: str, source: str) -> str:
        if len(self._prefixes) >= CACHE_LIMIT_ENTRIES:
            self._prefixes.clear()
        prefix = identity_prefix(organization_id, source)
        self._prefixes[(organization_id, source)] = prefix
        return prefix
