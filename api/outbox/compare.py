"""Compares a topic with the database, to find records that the database does not know.

For every partition the database keeps the position up to which it has compared. A record beyond it
is one of ours (published by a process that was killed before it wrote that down), or somebody
else's, or the sign of a restored backup: a fact that the database has forgotten. Nothing may be
published over a forgotten fact, so its organization is halted until `metering facts import` has
read it; the other organizations go on. A fact of an organization that the database does not have
halts nobody: it is reported, and no new organization is given its id.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from aiokafka import TopicPartition
from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

from api.outbox.metrics import FOREIGN
from api.storage.ledgers import UNKNOWN_ORGANIZATION, OutboxFact, PublishingHalt, TopicPosition
from api.storage.models import Organization
from schemas.records import ID_LIMIT_CHARACTERS, INT64_MAX
from streams.kafka import home_partition

TOPIC_AHEAD: Final = "topic_ahead"
TOPIC_BEHIND: Final = "topic_behind"
UNKNOWN_MAX: Final = 1_000
"""Unknown organizations that are noted of a partition; more are only counted."""
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


@dataclass(frozen=True, slots=True)
class Halt:
    """Nothing of this organization may be published or changed until somebody has looked.

    `first_offset` is that of the first record which is not known here; where facts are lost
    instead, it is the end of what is left.
    """

    organization_id: str
    topic: str
    code: str
    message: str
    partition: int = 0
    first_offset: int = 0


def positions(session: Session, topic: str) -> dict[int, int]:
    """The next offset of each partition that was not compared yet."""
    rows = session.scalars(select(TopicPosition).where(TopicPosition.topic == topic))
    return {row.partition: row.next_offset for row in rows}


def unknown_since(session: Session, topic: str) -> dict[int, int]:
    """As `positions`, but where the facts begin that are not known here; empty where all are."""
    rows = session.execute(
        select(PublishingHalt.partition, func.min(PublishingHalt.first_offset))
        .where(PublishingHalt.topic == topic)
        .group_by(PublishingHalt.partition)
    )
    return {row[0]: row[1] for row in rows}


def keep_position(session: Session, topic: str, partition: int, next_offset: int) -> None:
    session.merge(TopicPosition(topic=topic, partition=partition, next_offset=next_offset))


def halts(session: Session) -> list[Halt]:
    """What is halted, and which unknown organizations were seen."""
    rows = session.scalars(
        select(PublishingHalt).order_by(PublishingHalt.organization_id, PublishingHalt.topic)
    )
    return [
        Halt(row.organization_id, row.topic, row.code, row.message, row.partition, row.first_offset)
        for row in rows
    ]


def write_halts(session: Session, halts: Sequence[Halt], now: datetime) -> None:
    """The first halt of an organization and topic stays: it says where to begin."""
    for halt in halts:
        if session.get(PublishingHalt, (halt.organization_id, halt.topic)) is None:
            session.add(PublishingHalt(since=now, **asdict(halt)))
            session.flush()


async def records_between(
    consumer: Any, partition: TopicPartition, start: int, end: int
) -> list[tuple[int, bytes]]:
    """Offset and value of every record from `start` up to `end`, exclusive."""
    consumer.assign([partition])
    consumer.seek(partition, start)
    records: list[tuple[int, bytes]] = []
    while await consumer.position(partition) < end:
        batches = await consumer.getmany(partition, timeout_ms=POLL_MS)
        records += [
            (record.offset, record.value or b"")
            for record in batches.get(partition, ())
            if record.offset < end
        ]
    return records


def check_known(
    session: Session,
    topic: str,
    partition: int,
    records: Sequence[tuple[int, bytes]],
    now: datetime,
) -> None:
    """Marks what is ours as published, and halts the organizations of what is not known here."""
    for start in range(0, len(records), KEYS_A_STATEMENT):
        unknown = _check_some(session, topic, records[start : start + KEYS_A_STATEMENT], now)
        write_halts(session, _limited(session, topic, partition, unknown), now)


def _check_some(
    session: Session, topic: str, records: Sequence[tuple[int, bytes]], now: datetime
) -> dict[tuple[str, int], int]:
    """Organization and version of what is not known here, with the offset of each."""
    read: list[tuple[int, Header, bytes]] = []
    for offset, value in records:
        header = read_header(value)
        if header is None:
            FOREIGN.inc()
        else:
            read.append((offset, header, value))
    keys = {(header.organization_id, header.version) for _, header, _ in read}
    rows = session.execute(
        select(
            OutboxFact.id,
            OutboxFact.organization_id,
            OutboxFact.version,
            OutboxFact.payload,
            OutboxFact.published_at,
        ).where(
            OutboxFact.topic == topic,
            tuple_(OutboxFact.organization_id, OutboxFact.version).in_(list(keys)),
        )
    )
    known = {(row.organization_id, row.version): row for row in rows}
    ours = []
    unknown: dict[tuple[str, int], int] = {}
    for offset, header, value in read:
        key = (header.organization_id, header.version)
        row = known.get(key)
        if row is None or (row.payload != value and row.published_at is None):
            unknown.setdefault(key, offset)
        elif row.payload != value:
            FOREIGN.inc()
        elif row.published_at is None:
            ours.append(row.id)
    if ours:
        session.execute(update(OutboxFact).where(OutboxFact.id.in_(ours)).values(published_at=now))
    return unknown


def _limited(
    session: Session, topic: str, partition: int, unknown: dict[tuple[str, int], int]
) -> list[Halt]:
    """A halt for each organization, and as many notes of unknown ones as a partition may have."""
    organization_ids = {organization_id for organization_id, _ in unknown}
    members = set(
        session.scalars(select(Organization.id).where(Organization.id.in_(organization_ids)))
    )
    noted = session.scalar(
        select(func.count()).where(
            PublishingHalt.topic == topic,
            PublishingHalt.partition == partition,
            PublishingHalt.code == UNKNOWN_ORGANIZATION,
        )
    )
    room = UNKNOWN_MAX - int(noted or 0)
    halts: dict[str, Halt] = {}
    for (organization_id, version), offset in unknown.items():
        FOREIGN.inc()
        if organization_id in halts:
            continue
        if organization_id in members:
            code, message = TOPIC_AHEAD, _ahead(topic, organization_id, version)
        elif room > 0:
            room -= 1
            code, message = UNKNOWN_ORGANIZATION, _unknown(topic, organization_id, version)
        else:
            continue
        halts[organization_id] = Halt(organization_id, topic, code, message, partition, offset)
    return list(halts.values())


def _ahead(topic: str, organization_id: str, version: int) -> str:
    return (
        f"The topic {topic!r} has version {version} of organization {organization_id!r}, which "
        "this database does not know: an older backup was restored, or somebody else writes to "
        "the topic. Nothing of this organization is changed or published until `metering facts "
        "import` has run."
    )


def _unknown(topic: str, organization_id: str, version: int) -> str:
    return (
        f"The topic {topic!r} has version {version} of {organization_id!r}, and this database has "
        "no such organization: an older backup was restored, or somebody else writes to the "
        "topic. `metering facts import` brings it back, or forgets it with `--forget`; until then "
        "the id is given to nobody."
    )


def behind(
    session: Session, partition: TopicPartition, topic: str, end: int, position: int, among: int
) -> list[Halt]:
    """The partition lost records that were in it: a halt for each of its organizations, since
    what each has lost cannot be told. `among` is how many partitions there are."""
    message = (
        f"Partition {partition.partition} of {partition.topic!r} ends at offset {end}, but facts "
        f"up to {position} were published to it: the cluster was replaced or has lost data. "
        "Nothing of the organizations in it is changed or published."
    )
    return [
        Halt(organization_id, topic, TOPIC_BEHIND, message, partition.partition, end)
        for organization_id in session.scalars(select(Organization.id).order_by(Organization.id))
        if home_partition(organization_id.encode(), among) == partition.partition
    ]
