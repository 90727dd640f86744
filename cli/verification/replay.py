"""Plays one partition's inputs through the model and compares what came out, record by record.

The pipeline is free in one thing only: how facts, usage and the clock interleave. That is read from
its outputs (each transaction stamps its own time on all it writes, and a partition has one
transaction at a time), and checked against the promise: a fact that was in its topic before a usage
event came is applied before it. Everything else has one right answer.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from aiokafka.partitioner import murmur2

from cli.verification.cast import ALIAS_SECRET
from cli.verification.differences import Differences
from cli.verification.messages import Expected
from cli.verification.model import DeadLetter, Duplicate, Model, Rated
from cli.verification.outputs import Outputs, name_of, read_outputs, time_of
from cli.verification.parsing import Refused, read_usage
from cli.verification.replay_facts import FactReplay
from cli.verification.topic_contents import Contents
from schemas import topics
from schemas.codec import alias_hash
from schemas.headers import FORWARDED
from schemas.reasons import Reason
from schemas.records import RatedEvent
from schemas.settings import Settings

BY_PIPELINE: Final = ("input_topic", "input_partition", "input_offset", "recorded_at")
"""Fields of a rated row that the model does not know; checked apart."""
Forward = tuple[bytes, int, int]
"""Value, the partition it was found in, and its append time there in milliseconds."""


@dataclass
class Verdict:
    """What one partition came to; verdicts of partitions are added up."""

    differences: Differences = field(default_factory=Differences)
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sent_on: Counter[Forward] = field(default_factory=Counter)
    came_from: Counter[Forward] = field(default_factory=Counter)
    spend: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Cost by organization, stamped group and meter, as the model has it."""
    deleted: set[tuple[str, str]] = field(default_factory=set)
    """Groups deleted, by organization."""

    def add(self, other: "Verdict") -> None:
        self.differences.add(other.differences)
        self.counts += other.counts
        self.reasons += other.reasons
        self.sent_on += other.sent_on
        self.came_from += other.came_from
        self.spend += other.spend
        self.deleted |= other.deleted

    def compare_forwarding(self) -> None:
        """Once all partitions are in: what was sent on has come, once each."""
        for (value, partition, at_ms), times in (self.sent_on - self.came_from).items():
            self.differences.note_lost(
                f"{value[:80]!r} in partition {partition} at {at_ms} should have been sent on to "
                f"its own partition {times} more times"
            )
        for (value, partition, _), times in (self.came_from - self.sent_on).items():
            self.differences.note_duplicated(
                f"{value[:80]!r} was sent on from partition {partition} {times} times too often"
            )


def replay(
    contents: Contents, settings: Settings, expected: Expected, settled_at: datetime
) -> Verdict:
    """The verdict on one partition. `settled_at`: until then the clock had time to do its part."""
    return _Replay(contents, settings, expected).run(settled_at)


class _Replay:
    def __init__(self, contents: Contents, settings: Settings, expected: Expected) -> None:
        self._contents = contents
        self._settings = settings
        self._expected = expected
        self._verdict = Verdict()
        self._differences = self._verdict.differences
        self._outputs: Outputs = read_outputs(contents, self._differences)
        self._age = timedelta(days=settings.max_event_age_days)
        self._model = Model(
            partial(alias_hash, ALIAS_SECRET.encode()),
            self._age,
            timedelta(seconds=settings.late_grace_s),
        )
        self._facts = FactReplay(
            self._model, contents, self._outputs, self._differences, self._verdict.counts
        )
        self._is_mine: dict[bytes, bool] = {}

    def run(self, settled_at: datetime) -> Verdict:
        for record in self._contents.records[topics.USAGE]:
            self._verdict.counts["input"] += 1
            if self._is_here(record):
                self._decide(record)
        self._facts.finish(settled_at)
        for offset in sorted(self._outputs.rated):
            self._differences.note_duplicated(
                f"{name_of(self._outputs.rated[offset])} is rated, but is not due from its input"
            )
        for topic, offset in sorted(self._outputs.refused):
            reason = self._outputs.refused[topic, offset].reason
            self._differences.note_duplicated(
                f"{topic}[{self._contents.partition}] at {offset} is dead-lettered ({reason}), but "
                "should not be"
            )
        self._verdict.deleted = set(self._facts.deleted())
        return self._verdict

    def _decide(self, record: Any) -> None:
        row = self._outputs.rated.pop(record.offset, None)
        refusal = self._outputs.refused.get((topics.USAGE, record.offset))
        if row is not None:
            self._facts.advance(row.recorded_at, record.timestamp)
            self._facts.note_closing(row)
            self._facts.check_lapses(row, record.timestamp)
        elif refusal is not None:
            self._facts.advance(refusal.decided_before, record.timestamp)
        due = self._model.usage(record.value, record.key, list(record.headers), time_of(record))
        if isinstance(due, Rated):
            self._compare_row(record, due.row, row)
        elif row is not None:
            self._differences.note_duplicated(f"{name_of(row)} is rated, but {due} is due")
        if isinstance(due, DeadLetter):
            self._refused(record, due.reason)
        elif isinstance(due, Duplicate):
            self._verdict.counts["duplicates"] += 1
        self._check_expected(record, due)

    def _compare_row(self, record: Any, due: dict[str, Any], row: RatedEvent | None) -> None:
        self._verdict.counts["rated"] += 1
        key = (due["organization_id"], due["stamped_group_id"], due["meter"])
        self._verdict.spend[key] += due["cost_micro"]
        if row is None:
            self._differences.note_lost(
                f"event {due['event_id']!r} of {due['source']!r} in {due['organization_id']!r} "
                f"(usage[{self._contents.partition}] at {record.offset}) is not rated"
            )
            return
        ours = (self._settings.topic(topics.USAGE), self._contents.partition, record.offset)
        if (row.input_topic, row.input_partition, row.input_offset) != ours:
            self._differences.note_wrong(f"{name_of(row)} names another input than {ours}")
        for name, value in due.items():
            actual = getattr(row, name)
            if name == "allocations":
                actual = [(each.pool, each.grant_id, each.amount_micro) for each in actual]
            if actual != value:
                self._differences.note_wrong(
                    f"{name_of(row)} at {record.offset}: {name} is {actual!r}, but {value!r} is due"
                )

    def _refused(self, record: Any, reason: Reason) -> None:
        self._verdict.counts["dead_letters"] += 1
        self._verdict.reasons[reason.value] += 1
        self._facts.compare_refusal(topics.USAGE, record, reason)

    def _check_expected(self, record: Any, due: Any) -> None:
        """What was made to be wrong in one way is found wrong in that way, by the model too."""
        made_for = self._expected.get(record.value)
        if made_for is not None and due != DeadLetter(made_for):
            self._differences.note_wrong(
                f"usage[{self._contents.partition}] at {record.offset} was made to be refused as "
                f"{made_for}, but the model says {due}"
            )

    def _is_here(self, record: Any) -> bool:
        """Whether the event belongs here; what does not is sent on, or refused the second time."""
        headers = dict(record.headers)
        original = headers.get(topics.ORIGINAL_APPEND_TIME_HEADER)
        if original is not None and FORWARDED not in headers:
            self._verdict.counts["replayed"] += 1
        if FORWARDED in headers and original is not None:
            self._verdict.came_from[record.value, int(headers[FORWARDED]), int(original)] += 1
        if self._belongs_here(record.key):
            return True
        try:
            usage = read_usage(
                record.value, record.key, list(record.headers), time_of(record), self._age
            )
        except Refused:
            return True
        if self._belongs_here(usage.organization_id.encode()):
            return True
        if FORWARDED in headers:
            self._refused(record, Reason.WRONG_PARTITION)
        else:
            self._verdict.counts["sent_on"] += 1
            self._verdict.sent_on[record.value, self._contents.partition, record.timestamp] += 1
        return False

    def _belongs_here(self, key: bytes | None) -> bool:
        if not key:
            return False
        is_mine = self._is_mine.get(key)
        if is_mine is None:
            hashed = murmur2(key) & 0x7FFFFFFF
            is_mine = hashed % self._settings.partitions == self._contents.partition
            self._is_mine[key] = is_mine
        return is_mine


def rows_of(contents: Contents) -> Iterator[RatedEvent]:
    """The rated rows of a partition in their order."""
    outputs = read_outputs(contents, Differences())
    yield from outputs.rated.values()
