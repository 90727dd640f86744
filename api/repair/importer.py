"""`metering facts import`: repairs a database that is behind its topics (a restored backup).

Reads what lies beyond the known positions, writes the facts that are missing into the database,
and lifts the halt. Names are not in facts: groups and members that come back this way have their
ids for names, until `recall` has asked ClickHouse, which is told nothing by an import. Aliases are
only hashes there: addresses that the database still has follow them, the others are for `recall`.
What the database has given out but not published moves behind what it has learnt: nobody has seen
those versions yet. Only for a database behind its topics; a lost cluster is another matter.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from api.clock import Clock
from api.outbox import compare
from api.outbox.compare import Halt
from api.repair.default_book import default_price, restore_default_book
from api.repair.replay import apply_fact
from api.rules.aliases import follow_facts
from api.rules.bounds import subject_of
from api.rules.change import Actor, audit_entry
from api.storage.ledgers import AuditEntry, OutboxFact, PublishingHalt
from api.storage.models import Organization
from api.storage.store import Store
from schemas import codec, topics
from schemas.records import CreditRecord, MembershipRecord, OrganizationCreated
from schemas.settings import Settings
from streams.kafka import client_options

Record = MembershipRecord | CreditRecord
VERSION_COLUMNS = {topics.MEMBERSHIPS: "memberships_version", topics.CREDITS: "credits_version"}


@dataclass
class Imported:
    """What an import did. `ignored` records could not be read, or contradict what is known;
    `default_prices` came back into the default book, and `waiting_facts` of them are published
    next, for organizations that had not heard of them; of `unknown_aliases` only the hash is known.
    `unrepairable` organizations stay halted; it says why."""

    learnt: int = 0
    moved_behind: int = 0
    ignored: int = 0
    default_prices: int = 0
    waiting_facts: int = 0
    unknown_aliases: int = 0
    organizations: set[str] = field(default_factory=set)
    saw_default_prices: bool = False
    unrepairable: dict[str, str] = field(default_factory=dict)


class Unrepairable(Exception):
    """The topics do not continue this database: a version is missing between the two."""


@dataclass
class _TopicRecords:
    """What a topic has of one organization, by version, and where that begins."""

    partition: int
    first_offset: int
    records: dict[int, tuple[Record, bytes]] = field(default_factory=dict)


async def import_facts(
    settings: Settings,
    store: Store,
    clock: Clock,
    alias_secret: bytes,
    actor: Actor,
    forgotten: frozenset[str] = frozenset(),
) -> Imported:
    """Brings the database to the ends of both topics, in one transaction.

    What cannot be repaired stays halted, and the others are not kept by it. What the topics say
    of the `forgotten` organizations is somebody else's: it is not learnt, and no longer in the
    way. The audit log tells that it was done, and of which organizations; who once made the
    changes is not in the facts.

    Raises KafkaError where the broker is away.
    """
    ends: dict[TopicPartition, int] = {}
    imported = Imported()
    by_organization: dict[str, dict[str, _TopicRecords]] = defaultdict(dict)
    for topic in topics.FACTS:
        records, topic_ends = await _read_topic(settings, store, topic)
        ends |= topic_ends
        _sort(topic, records, forgotten, by_organization, imported)
    with store.write() as session:
        lifted = _lift_halts(session)
        for organization_id, by_topic in sorted(by_organization.items()):
            _repair(session, organization_id, by_topic, clock(), imported)
        for organization_id in sorted(imported.organizations):
            unknown = follow_facts(session, organization_id, alias_secret)
            imported.unknown_aliases += len(unknown)
        if imported.saw_default_prices or lifted:
            imported.default_prices, imported.waiting_facts = restore_default_book(session, clock())
        for partition, end in ends.items():
            compare.keep_position(session, partition.topic, partition.partition, end)
        session.execute(insert(AuditEntry), _audit(imported, actor, clock()))
    return imported


def _lift_halts(session: Session) -> int:
    """How many there were. Whoever cannot be repaired is halted again."""
    count = len(compare.halts(session))
    session.execute(delete(PublishingHalt))
    return count


def _repair(
    session: Session,
    organization_id: str,
    by_topic: dict[str, _TopicRecords],
    now: datetime,
    imported: Imported,
) -> None:
    """All that the topics have of one organization, or nothing of it."""
    one = Imported()
    try:
        with session.begin_nested():
            for topic in topics.FACTS:
                if topic in by_topic:
                    records = by_topic[topic].records
                    _import_organization(session, topic, organization_id, records, now, one)
    except Unrepairable as error:
        imported.unrepairable[organization_id] = str(error)
        compare.write_halts(
            session,
            [
                Halt(
                    organization_id,
                    topic,
                    compare.TOPIC_AHEAD,
                    f"`metering facts import` cannot repair it: {error}",
                    of_topic.partition,
                    of_topic.first_offset,
                )
                for topic, of_topic in by_topic.items()
            ],
            now,
        )
        return
    imported.learnt += one.learnt
    imported.moved_behind += one.moved_behind
    imported.ignored += one.ignored
    imported.organizations |= one.organizations


def _audit(imported: Imported, actor: Actor, now: datetime) -> list[dict[str, Any]]:
    """An entry for the platform, and one for each organization that learnt something."""
    report: dict[str, Any] = {
        "learnt": imported.learnt,
        "moved_behind": imported.moved_behind,
        "ignored": imported.ignored,
        "default_prices": imported.default_prices,
        "told": imported.waiting_facts,
    }
    subject = ("topics", "facts")
    of_one: dict[str, Any] = {"why": "an older backup was restored"}
    return [
        audit_entry(None, actor, now, "facts.import", subject, None, report),
        *(
            audit_entry(organization_id, actor, now, "facts.import", subject, None, of_one)
            for organization_id in sorted(imported.organizations)
        ),
    ]


async def _read_topic(
    settings: Settings, store: Store, topic: str
) -> tuple[list[tuple[int, int, bytes]], dict[TopicPartition, int]]:
    """Partition, offset and value of what lies beyond the known positions, or beyond the first
    unknown fact; and the ends up to which that was read."""
    name = settings.topic(topic)
    with store.read() as session:
        known = compare.positions(session, name)
        unknown = compare.unknown_since(session, topic)
        halted = {halt.organization_id for halt in compare.halts(session)}
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, auto_offset_reset="none"
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(name, number) for number in range(settings.partitions)]
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        unknown_records: list[tuple[int, int, bytes]] = []
        for partition, end in ends.items():
            number = partition.partition
            position = known.get(number, 0)
            start = min(position, unknown.get(number, position))
            if start < end:
                records = await compare.records_between(consumer, partition, start, end)
                unknown_records += [
                    (number, offset, value)
                    for offset, value in records
                    if offset >= position or _names(value, halted)
                ]
    finally:
        await consumer.stop()
    return unknown_records, ends


def _names(value: bytes, organization_ids: set[str]) -> bool:
    header = compare.read_header(value)
    return header is not None and header.organization_id in organization_ids


def _sort(
    topic: str,
    records: Sequence[tuple[int, int, bytes]],
    forgotten: frozenset[str],
    by_organization: dict[str, dict[str, _TopicRecords]],
    imported: Imported,
) -> None:
    """Puts the records of a topic to their organizations."""
    decode: Any = codec.decode_membership if topic == topics.MEMBERSHIPS else codec.decode_credit
    for partition, offset, value in records:
        try:
            record: Record | None = decode(value) if compare.read_header(value) else None
        except (ValueError, RecursionError):
            record = None
        if record is None or record.organization_id in forgotten:
            imported.ignored += 1
            continue
        if isinstance(record, MembershipRecord) and default_price(record):
            imported.saw_default_prices = True
        of_one = by_organization[record.organization_id].setdefault(
            topic, _TopicRecords(partition, offset)
        )
        of_one.records.setdefault(record.version, (record, value))


def _import_organization(
    session: Session,
    topic: str,
    organization_id: str,
    records: dict[int, tuple[Record, bytes]],
    now: datetime,
    imported: Imported,
) -> None:
    organization = session.get(Organization, organization_id, with_for_update=True)
    rows = session.scalars(
        select(OutboxFact)
        .where(OutboxFact.organization_id == organization_id, OutboxFact.topic == topic)
        .order_by(OutboxFact.version)
    ).all()
    known = {row.version: row for row in rows}
    unpublished: list[OutboxFact] = []
    for row in rows:
        in_topic = records.pop(row.version, None)
        if in_topic is not None and in_topic[1] == row.payload:
            row.published_at = row.published_at or now
        elif row.published_at is None:
            unpublished.append(row)
            if in_topic is not None:
                records[row.version] = in_topic
        elif in_topic is not None:
            imported.ignored += 1
    if not records:
        return
    _check_begin(organization, topic, organization_id, records)
    behind = [row for row in unpublished if row.version >= min(records)]
    for row in behind:
        session.delete(row)
    session.flush()
    last = max((row.version for row in known.values() if row not in behind), default=0)
    for version in sorted(records):
        record, value = records[version]
        if version != last + 1:
            raise Unrepairable(
                f"{topic} of {organization_id!r} continues with version {version}, but this "
                f"database ends at {last}: {version - last - 1} facts are in neither."
            )
        organization = _learn(session, organization, topic, record, value, now)
        last = version
        imported.learnt += 1
    imported.organizations.add(organization_id)
    _append_behind(session, organization, topic, behind, last, imported)


def _check_begin(
    organization: Organization | None,
    topic: str,
    organization_id: str,
    records: dict[int, tuple[Record, bytes]],
) -> None:
    """Raises Unrepairable where this is no organization, but only facts that name one."""
    begin = records.get(1)
    if organization is None and not (begin and isinstance(begin[0].fact, OrganizationCreated)):
        raise Unrepairable(f"{topic} of {organization_id!r} does not begin with its creation.")


def _learn(
    session: Session,
    organization: Organization | None,
    topic: str,
    record: Record,
    value: bytes,
    now: datetime,
) -> Organization:
    learner = apply_fact(session, organization, record)
    learner.updated_at = max(learner.updated_at, record.recorded_at)
    setattr(learner, VERSION_COLUMNS[topic], record.version)
    session.add(
        OutboxFact(
            organization_id=learner.id,
            topic=topic,
            version=record.version,
            subject=subject_of(record.fact),
            payload=value,
            created_at=record.recorded_at,
            published_at=now,
        )
    )
    session.flush()
    return learner


def _append_behind(
    session: Session,
    organization: Organization | None,
    topic: str,
    behind: Sequence[OutboxFact],
    last: int,
    imported: Imported,
) -> None:
    """Our own unpublished facts again, with versions after all that was learnt."""
    assert organization is not None
    decode: Any = codec.decode_membership if topic == topics.MEMBERSHIPS else codec.decode_credit
    for row in behind:
        last += 1
        record = msgspec.structs.replace(decode(row.payload), version=last)
        apply_fact(session, organization, record)
        setattr(organization, VERSION_COLUMNS[topic], last)
        session.add(
            OutboxFact(
                organization_id=organization.id,
                topic=topic,
                version=last,
                subject=subject_of(record.fact),
                payload=codec.encode(record),
                created_at=row.created_at,
            )
        )
        session.flush()
        imported.moved_behind += 1
