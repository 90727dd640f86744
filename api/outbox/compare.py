"""Comparing a topic with the database: is everything in it known here?

Every partition has a position up to which that is known to hold. What lies beyond is our own
(published, then killed before it was written down), somebody else's, or the sign of a restored
backup: facts that the database has forgotten. Nothing may be published over those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from aiokafka import TopicPartition
from sqlalchemy import select, tuple_, update
from sqlalchemy.orm import Session

from api.outbox.metrics import FOREIGN
from api.storage.ledgers import OutboxFact, PublishingHalt, TopicPosition
from schemas.records import ID_LIMIT_CHARACTERS, INT64_MAX

TOPIC_AHEAD: Final = "topic_ahead"
TOPIC_BEHIND: Final = "topic_behind"
KEYS_A_STATEMENT: Final = 500
POLL_MS: Final = 200


class Header(msgspec.Struct):
    """What tells a fact from the next, within the limits that a database holds."""

    organization_id: Annotated[
        str, msgspec.Meta(min_length=1, max_length=ID_LIMIT_CHARACTERS, pattern=r"^[^\x00]*$")
    ]
    version: Annotated[int, msgspec.Meta(ge=1, le=INT64_MAX)]


_decode_header = msgspec.json.Decoder(Header).decode


def read_header(value: bytes) -> Header | None:
    """Of a record's value, whatever that is; None where it can be no fact."""
    try:
        return _decode_header(value)
    except (ValueError, RecursionError):
        return None


@dataclass(eq=False)
class Halt(Exception):
    """Publishing must stop until somebody has looked; written down by `write_halt`."""

    topic: str
    code: str
    message: str


def positions(session: Session, topic: str) -> dict[int, int]:
    """The next offset of each partition that is not yet known to be ours."""
    rows = session.scalars(select(TopicPosition).where(TopicPosition.topic == topic))
    return {row.partition: row.next_offset for row in rows}


def keep_position(session: Session, topic: str, partition: int, next_offset: int) -> None:
    session.merge(TopicPosition(topic=topic, partition=partition, next_offset=next_offset))


def write_halt(session: Session, halt: Halt, now: datetime) -> None:
    session.merge(PublishingHalt(topic=halt.topic, code=halt.code, message=halt.message, since=now))


async def records_between(
    consumer: Any, partition: TopicPartition, start: int, end: int
) -> list[tuple[int, bytes]]:
    """Offset and value of every record from `start` up to `end`, exclusive."""
    consumer.assign([partition])
    consumer.seek(partition, start)
    found: list[tuple[int, bytes]] = []
    while await consumer.position(partition) < end:
        batches = await consumer.getmany(partition, timeout_ms=POLL_MS)
        found += [
            (record.offset, record.value or b"")
            for record in batches.get(partition, ())
            if record.offset < end
        ]
    return found


def check_known(session: Session, topic: str, values: Sequence[bytes], now: datetime) -> None:
    """Marks what is ours as published. Raises Halt where a record is ahead of the database."""
    for start in range(0, len(values), KEYS_A_STATEMENT):
        _check_some(session, topic, values[start : start + KEYS_A_STATEMENT], now)


def _check_some(session: Session, topic: str, values: Sequence[bytes], now: datetime) -> None:
    wanted: dict[tuple[str, int], bytes] = {}
    for value in values:
        header = read_header(value)
        if header is None:
            FOREIGN.inc()
            continue
        wanted[header.organization_id, header.version] = value
    rows = session.execute(
        select(
            OutboxFact.id,
            OutboxFact.organization_id,
            OutboxFact.version,
            OutboxFact.payload,
            OutboxFact.published_at,
        ).where(
            OutboxFact.topic == topic,
            tuple_(OutboxFact.organization_id, OutboxFact.version).in_(list(wanted)),
        )
    )
    known = {(row.organization_id, row.version): row for row in rows}
    ours = []
    for key, value in wanted.items():
        row = known.get(key)
        if row is None or (row.payload != value and row.published_at is None):
            raise Halt(topic, TOPIC_AHEAD, _ahead(topic, *key))
        if row.payload != value:
            FOREIGN.inc()
        elif row.published_at is None:
            ours.append(row.id)
    if ours:
        session.execute(update(OutboxFact).where(OutboxFact.id.in_(ours)).values(published_at=now))


def _ahead(topic: str, organization_id: str, version: int) -> str:
    return (
        f"The topic {topic!r} has version {version} of organization {organization_id!r}, which "
        "this database does not know: an older backup was restored, or somebody else writes to "
        "the topic. Nothing is changed or published until `metering facts import` has run."
    )


def behind(topic: str, partition: int, end: int, position: int) -> Halt:
    """The topic lost records that were in it: it is not the topic that it was."""
    return Halt(
        topic,
        TOPIC_BEHIND,
        f"Partition {partition} of {topic!r} ends at offset {end}, but facts up to {position} "
        "were published to it: the cluster was replaced or has lost data. Nothing is published.",
    )
