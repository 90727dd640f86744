"""One partition's outputs, found by the input record that they belong to.

What is there twice is noted here, and what breaks the order.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

from cli.verification.differences import Differences
from cli.verification.topic_contents import Contents
from schemas import headers, topics
from schemas.codec import decode_fact_applied, decode_posting, decode_rated
from schemas.records import FactApplied, Posting, RatedEvent

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
At = tuple[str, int]
"""Unprefixed input topic and offset."""


@dataclass
class Refusal:
    """A dead letter, its parts put together, without the headers that the worker added."""

    reason: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    decided_before: datetime
    """No transaction after the one that wrote it began as early as that."""


@dataclass
class Outputs:
    rated: dict[int, RatedEvent] = field(default_factory=dict)
    refused: dict[At, Refusal] = field(default_factory=dict)
    applied: dict[At, FactApplied] = field(default_factory=dict)
    postings: dict[At, list[Posting]] = field(default_factory=dict)
    """By the version of their cause: (topic and organization, version)."""
    ticks: list[tuple[datetime, list[Posting]]] = field(default_factory=list)


def read_outputs(contents: Contents, differences: Differences) -> Outputs:
    outputs = Outputs()
    _read_rated(contents, outputs, differences)
    _read_refused(contents, outputs, differences)
    for record in contents.records[topics.FACTS_APPLIED]:
        row = decode_fact_applied(record.value)
        at = (row.topic, row.input_offset)
        if at in outputs.applied:
            differences.note_duplicated(f"fact {at} in partition {contents.partition} is applied")
        outputs.applied[at] = row
    _read_ledger(contents, outputs, differences)
    return outputs


def time_of(record: Any) -> datetime:
    """When the broker appended the record."""
    return EPOCH + timedelta(milliseconds=record.timestamp)


def name_of(row: RatedEvent) -> str:
    return f"event {row.event_id!r} of {row.source!r} in {row.organization_id!r}"


def _read_rated(contents: Contents, outputs: Outputs, differences: Differences) -> None:
    last, last_at = -1, EPOCH
    for record in contents.records[topics.USAGE_RATED]:
        row = decode_rated(record.value)
        if row.input_offset in outputs.rated:
            differences.note_duplicated(f"{name_of(row)} is rated twice")
        elif row.input_offset < last or row.recorded_at < last_at:
            differences.note_wrong(f"{name_of(row)} is rated out of order")
        if record.key != row.organization_id.encode():
            differences.note_wrong(f"{name_of(row)} is rated under the key {record.key!r}")
        last, last_at = row.input_offset, row.recorded_at
        outputs.rated[row.input_offset] = row


def _read_refused(contents: Contents, outputs: Outputs, differences: Differences) -> None:
    for record in contents.records[topics.DEAD_LETTERS]:
        originals, added = headers.take_apart(record.headers)
        at = (added[headers.TOPIC].decode(), int(added[headers.OFFSET]))
        part = added.get(headers.PART, b"1/1")
        if int(added[headers.PARTITION]) != contents.partition:
            differences.note_wrong(f"dead letter {at} says partition {added[headers.PARTITION]!r}")
        known = outputs.refused.get(at)
        if known is not None and not part.startswith(b"1/"):
            known.value = (known.value or b"") + record.value
            continue
        if known is not None:
            differences.note_duplicated(f"{at} in partition {contents.partition} is dead-lettered")
        outputs.refused[at] = Refusal(
            added[headers.REASON].decode(),
            record.key,
            record.value,
            originals,
            # Appended within its transaction; the next one begins after the commit.
            time_of(record) + timedelta(milliseconds=1),
        )


def _read_ledger(contents: Contents, outputs: Outputs, differences: Differences) -> None:
    rows = [decode_posting(record.value) for record in contents.records[topics.LEDGER]]
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        sums[row.organization_id, row.entry_id] += row.amount_micro
    for (organization_id, entry_id), amount in sums.items():
        if amount:
            differences.note_wrong(f"{entry_id} of {organization_id!r} sums to {amount}, not to 0")
    legs = Counter((row.organization_id, row.entry_id, row.leg) for row in rows)
    for leg, times in legs.items():
        if times > 1:
            differences.note_duplicated(f"ledger leg {leg} is there {times} times")
    for row in rows:
        if row.caused_by_topic:
            at = (f"{row.caused_by_topic} {row.organization_id}", row.caused_by_version)
            outputs.postings.setdefault(at, []).append(row)
    by_clock = (row for row in rows if not row.caused_by_topic)
    for now, postings in groupby(by_clock, key=lambda row: row.recorded_at):
        outputs.ticks.append((now, list(postings)))
