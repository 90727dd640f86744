"""The largest value of each kind of state, and the largest row, fit into their topics."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import available_timezones

import pytest

from schemas.bounds import CHANGES_MAX, LISTED_ID_BYTES_MAX, POOL_GRANTS_MAX, REMOVALS_SPARE
from schemas.codec import STATE_TYPES, encode, encode_state_key
from schemas.progress import Progress, TopicIds
from schemas.records import (
    DIMENSIONS_LIMIT,
    ID_LIMIT_CHARACTERS,
    INT64_MAX,
    Allocation,
    Expiry,
    FactDigest,
    Grant,
    Group,
    IssuedGrant,
    Organization,
    OrganizationSettings,
    Pool,
    Price,
    Prices,
    RatedEvent,
    SettingsSpan,
    Span,
    Timeline,
)
from schemas.topics import BALANCES, STATE, USAGE_RATED, all_topics

AT = datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
LISTED_ID = "g" * LISTED_ID_BYTES_MAX
ID = "\x01" * ID_LIMIT_CHARACTERS
"""Escaped as six bytes each: no other character takes more."""
ROOM = 0.9
"""How full a record may be: what surrounds it in its batch is some hundred bytes."""

GRANT = Grant(LISTED_ID, "one_time", INT64_MAX, AT, AT, INT64_MAX)
TIMELINE = Timeline([Span(AT, INT64_MAX, LISTED_ID)] * (CHANGES_MAX + REMOVALS_SPARE))
PRICES = [Price(AT, INT64_MAX, INT64_MAX)] * CHANGES_MAX
SETTINGS = SettingsSpan(
    AT,
    INT64_MAX,
    OrganizationSettings("website", INT64_MAX, "USD", 31, max(available_timezones(), key=len)),
)
LARGEST: dict[str, Any] = {
    "pool": Pool([GRANT] * POOL_GRANTS_MAX, INT64_MAX, -INT64_MAX),
    "organization": Organization([SETTINGS] * CHANGES_MAX, *[INT64_MAX] * 4),
    "member": TIMELINE,
    "website": TIMELINE,
    "alias": TIMELINE,
    "group": Group(AT, AT, True),
    "price": Prices(PRICES, PRICES),
    "grant": IssuedGrant("website", ID, INT64_MAX, INT64_MAX, INT64_MAX),
    "fact": FactDigest("f" * 32),
    "expiry": Expiry("website", ID, LISTED_ID),
    "progress": Progress({ID + topic: INT64_MAX for topic in all_topics()}),
    "topics": TopicIds(ID, {ID + topic: ID for topic in all_topics()}),
}


def room_in(topic: str) -> float:
    return ROOM * all_topics()[topic].max_message_bytes


@pytest.mark.parametrize("kind", STATE_TYPES)
def test_the_largest_value_of_a_kind_fits_into_its_changelog(kind: str) -> None:
    value = LARGEST[kind]
    assert type(value) is STATE_TYPES[kind]
    key = encode_state_key((kind, ID, ID, ID))
    assert len(key) + len(encode(value)) < room_in(BALANCES if kind == "pool" else STATE)


def test_an_event_that_takes_from_all_grants_of_two_full_pools_fits_into_usage_rated() -> None:
    # An event costs at most Int64, of which each of the grants pays its part.
    part_micro = INT64_MAX // (2 * POOL_GRANTS_MAX)
    paid = [
        Allocation(pool, LISTED_ID, part_micro)
        for pool in ("website", "group")
        for _ in range(POOL_GRANTS_MAX)
    ]
    dimensions = {f"{ID[2:]}{each:02}": ID for each in range(DIMENSIONS_LIMIT)}
    fields: list[Any] = [
        ID, ID, ID, INT64_MAX, AT, ID, ID, ID, "unknown", ID, dimensions, ID, ID, *[INT64_MAX] * 10,
        "USD", paid, INT64_MAX, INT64_MAX, ID, INT64_MAX, INT64_MAX, AT, AT,
    ]  # fmt: skip
    assert len(ID) + len(encode(RatedEvent(*fields))) < room_in(USAGE_RATED)
