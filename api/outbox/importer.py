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
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.outbox import compare
from api.outbox.default_book import default_price, restore_default_book
from api.outbox.replay import apply_fact
from api.rules.aliases import follow_facts
from api.rules.change import Actor, Clock
from api.rules.credits import platform_audit
from api.storage.ledgers import AuditEntry, OutboxFact, PublishingHalt
from api.storage.models import Organization
from api.storage.store import Store
from schemas import codec, topics
from schemas.records import CreditRecord, MembershipRecord
from schemas.settings import Settings
from streams.kafka import client_options

Record = MembershipRecord | CreditRecord
VERSION_COLUMNS = {topics.MEMBERSHIPS: "memberships_version", topics.CREDITS: "credits_version"}


@dataclass
class Imported:
    """What an import did. `ignored` records could not be read, or contradict what is known;
    `default_prices` came back into the default book, and `told` facts of them wait for
    organizations that had not heard of them; of `unknown_aliases` only the hash is known."""

    learnt: int = 0
    moved_behind: int = 0
    ignored: int = 0
    default_prices: int = 0
    told: int = 0
    unknown_aliases: int = 0
    organizations: set[str] = field(default_factory=set)
    saw_default_prices: bool = False


class Unrepairable(Exception):
    """The topics do not continue this database: a version is missing between the two."""


async def import_facts(
    settings: Settings, store: Store, clock: Clock, alias_secret: bytes, actor: Actor
) -> Imported:
    """Brings the database to the ends of both topics, in one transaction.

    The audit log tells that it was done, and of which organizations; who once made the changes
    is not in the facts.

    Raises KafkaError where the broker is away, and Unrepairable where facts are missing.
    """
    found, ends = await _read_topics(settings, store)
    imported = Imported()
    with store.write() as session:
        for topic in topics.FACTS:
            _import_topic(session, topic, found[topic], clock(), imported)
        for organization_id in sorted(imported.organizations):
            unknown = follow_facts(session, organization_id, alias_secret)
            imported.unknown_aliases += len(unknown)
        if imported.saw_default_prices:
            imported.default_prices, imported.told = restore_default_book(session, clock())
        for partition, end in ends.items():
            compare.keep_position(session, partition.topic, partition.partition, end)
        session.execute(delete(PublishingHalt))
        session.add_all(_audit(imported, actor, clock()))
    return imported


def _audit(imported: Imported, actor: Actor, now: datetime) -> list[AuditEntry]:
    """An entry for the platform, and one for each organization that learnt something."""
    entries = []
    for organization_id in (None, *sorted(imported.organizations)):
        entry = platform_audit(
            actor,
            now,
            "facts.import",
            ("topics", "facts"),
            {
                "learnt": imported.learnt,
                "moved_behind": imported.moved_behind,
                "ignored": imported.ignored,
                "default_prices": imported.default_prices,
                "told": imported.told,
            }
            if organization_id is None
            else {"why": "an older backup was restored"},
        )
        entry.organization_id = organization_id
        entries.append(entry)
    return entries


async def _read_topics(
    settings: Settings, store: Store
) -> tuple[dict[str, list[bytes]], dict[TopicPartition, int]]:
    """What lies beyond the known positions by topic, and the ends up to which that was read."""
    consumer = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, auto_offset_reset="none"
    )
    await consumer.start()
    try:
        found: dict[str, list[bytes]] = {}
        ends: dict[TopicPartition, int] = {}
        for topic in topics.FACTS:
            name = settings.topic(topic)
            with store.read() as session:
                known = compare.positions(session, name)
            partitions = [TopicPartition(name, number) for number in range(settings.partitions)]
            ends |= await consumer.end_offsets(partitions)
            found[topic] = []
            for partition in partitions:
                start = known.get(partition.partition, 0)
                if start < ends[partition]:
                    records = await compare.records_between(
                        consumer, partition, start, ends[partition]
                    )
                    found[topic] += [value for _, value in records]
    finally:
        await consumer.stop()
    return found, ends


def _import_topic(
    session: Session, topic: str, values: Sequence[bytes], now: datetime, imported: Imported
) -> None:
    decode = codec.decode_membership if topic == topics.MEMBERSHIPS else codec.decode_credit
    by_organization: dict[str, dict[int, tuple[Record, bytes]]] = defaultdict(dict)
    for value in values:
        try:
            record: Record | None = decode(value) if compare.read_header(value) else None
        except (ValueError, RecursionError):
            record = None
        if record is None:
            imported.ignored += 1
            continue
        if isinstance(record, MembershipRecord) and default_price(record):
            imported.saw_default_prices = True
        by_organization[record.organization_id].setdefault(record.version, (record, value))
    for organization_id, records in sorted(by_organization.items()):
        _import_organization(session, topic, organization_id, records, now, imported)


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
        there = records.pop(row.version, None)
        if there is not None and there[1] == row.payload:
            row.published_at = row.published_at or now
        elif row.published_at is None:
            unpublished.append(row)
            if there is not None:
                records[row.version] = there
        elif there is not None:
            imported.ignored += 1
    if not records:
        return
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


def _learn(
    session: Session,
    organization: Organization | None,
    topic: str,
    record: Record,
    value: bytes,
    now: datetime,
) -> Organization:
    made = apply_fact(session, organization, record)
    made.updated_at = max(made.updated_at, record.recorded_at)
    setattr(made, VERSION_COLUMNS[topic], record.version)
    session.add(
        OutboxFact(
            organization_id=made.id,
            topic=topic,
            version=record.version,
            payload=value,
            created_at=record.recorded_at,
            published_at=now,
        )
    )
    session.flush()
    return made


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
                payload=codec.encode(record),
                created_at=row.created_at,
            )
        )
        session.flush()
        imported.moved_behind += 1
