"""What parsing a usage record gives, and what it is measured by."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from schemas.settings import FUTURE_LIMIT_S

Headers = Sequence[tuple[str, bytes | None]]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class UsageEvent(Struct, frozen=True, gc=False):
    """A usage event that is well-formed in itself; nothing is known yet about its organization."""

    organization_id: str
    source: str
    event_id: str
    meter: str
    subject: str
    website_id: str
    """Empty where the event names none."""
    dimensions: dict[str, str]
    event_time: datetime
    """As sent, or the (original) append time."""
    appended_at: datetime
    """When the broker appended this record, also where a replay carries an earlier time."""
    quantity_micro: int
    identity: bytes
    """16 bytes of (organization_id, source, event_id)."""
    content: int
    """64 bits of everything else that was said; never 0."""


class Limits(Struct, frozen=True):
    """How far an event's time may be from its append time."""

    max_event_age: timedelta = timedelta(days=35)
    max_ahead: timedelta = timedelta(seconds=FUTURE_LIMIT_S)
    max_replay_age: timedelta = timedelta(days=50)
    """How far before its own append time a replay's original one may be: the dedupe window, since
    beyond it nobody knows any more whether the event was charged."""
