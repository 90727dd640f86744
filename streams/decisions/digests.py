"""Digests that tell events apart: who is it (identity), and what does it say (content).

Both are stored for the whole dedupe window: another formula is another dedupe, so the tests pin
their values.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from xxhash import xxh3_64_intdigest, xxh3_128_digest

encode_content = msgspec.json.Encoder(order="sorted").encode
"""JSON with sorted keys: quotes each part, so that parts cannot run together."""


def identity(organization_id: str, source: str, event_id: str) -> bytes:
    """16 bytes. The parts carry their lengths, so that no two triples have the same text."""
    return xxh3_128_digest((identity_prefix(organization_id, source) + event_id).encode())


def identity_prefix(organization_id: str, source: str) -> str:
    """What comes before the event's id, which needs no length because nothing follows it."""
    return f"{len(organization_id)}:{organization_id}{len(source)}:{source}"


def content_digest(
    meter: str,
    subject: str,
    sent_time: datetime | None,
    quantity_micro: int,
    website_id: str,
    dimensions: Mapping[str, str],
) -> int:
    """64 bits, never 0 (the seen store's word for unseen).

    `sent_time` is in UTC, and None where the event carried none: a retry is appended at another
    time and still says the same.
    """
    content = (meter, subject, sent_time, quantity_micro, website_id, dimensions)
    return xxh3_64_intdigest(encode_content(content)) or 1
