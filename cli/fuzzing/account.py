"""What became of every record: sent = rated + duplicates + dead letters + forwarded, and nothing
else, in the topics and in ClickHouse, bytes unchanged.
"""

import json
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

from aiokafka.consumer import fetcher

from cli.fuzzing.records import Sent
from cli.verification.differences import Differences
from cli.verification.parsing import Refused, read_usage
from cli.verification.topic_contents import Contents
from cli.verification.warehouse_contents import rows
from schemas import headers, topics
from schemas.codec import decode_fact_applied, decode_rated
from schemas.settings import Settings
from streams.steps import instant
from streams.wire.record_batch import Headers, Unreadable

At = tuple[str, int, int]
"""Unprefixed topic, partition, offset."""
Said = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]
"""Key, value and headers."""
LETTERS: Final = (
    "SELECT partition, offset, reason, input_topic, input_partition, input_offset, key_base64, "
    "hex(SHA256(base64Decode(value_base64))), "
    "arrayMap(each -> (hex(each.name), each.value_base64), headers) FROM dead_letters"
)


@dataclass(frozen=True)
class _Letter:
    reason: str
    said: Said
    is_packed: bool


class Account:
    """Give it all partitions with `add`, then `finish`, then `compare_clickhouse`; it notes
    differences on the way."""

    def __init__(self, settings: Settings, sent: Mapping[At, Sent]) -> None:
        self.differences = Differences()
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._settings = settings
        self._sent = dict(sent)
        self._rated: set[tuple[int, int]] = set()
        self._applied: set[At] = set()
        self._identities: set[tuple[str, str, str]] = set()
        self._letter_rows: dict[tuple[int, int], list[Any]] = {}
        self._forwarded: Counter[tuple[bytes | None, Headers | Any]] = Counter()
        self._open_usage: list[tuple[At, Any]] = []
        self._open_facts: list[tuple[At, Any]] = []
        self._versions: set[tuple[str, str, int]] = set()

    def add(self, contents: Contents) -> None:
        """One partition: its outcomes, then each of its inputs."""
        number = contents.partition
        for record in contents.records[topics.USAGE_RATED]:
            row = decode_rated(record.value)
            self._identities.add((row.organization_id, row.source, row.event_id))
            if (row.input_partition, row.input_offset) in self._rated:
                self.differences.note_duplicated(
                    f"usage {number}:{row.input_offset} is rated twice"
                )
            self._rated.add((row.input_partition, row.input_offset))
        for record in contents.records[topics.FACTS_APPLIED]:
            fact = decode_fact_applied(record.value)
            self._applied.add((fact.topic, fact.input_partition, fact.input_offset))
        letters = self._letters(contents)
        for name in topics.INPUTS:
            for record in contents.records[name]:
                self._input((name, number, record.offset), record, letters)
        for at in letters:
            self.differences.note_wrong(f"a dead letter names {at}, which is no record")

    def finish(self) -> None:
        """What only all partitions together tell."""
        for at, record in self._open_usage:
            self._leftover_usage(at, record)
        for left, times in self._forwarded.items():
            if times:
                self.differences.note_wrong(f"forwarded from nowhere: {left!r:.200}")
        for at, record in self._open_facts:
            version = _version(at[0], record)
            if version is None or version not in self._versions:
                self.differences.note_lost(f"{at}: {record.value!r:.200}")
            else:
                self.counts["repeated_facts"] += 1
        for at in self._sent:
            self.differences.note_lost(f"{at} was acknowledged and is not in the topic")

    def compare_clickhouse(self) -> None:
        """Whether it has the rows of all outcomes, and no others. Blocks."""

        def compare(what: str, actual: set[Any], expected: set[Any]) -> None:
            for each in list(expected - actual)[:3]:
                self.differences.note_lost(f"{what} {each!r:.300} is not in ClickHouse")
            for each in list(actual - expected)[:3]:
                self.differences.note_wrong(f"{what} {each!r:.300} is in ClickHouse only")

        settings = self._settings
        rated = rows(settings, "SELECT input_partition, input_offset FROM usage_rated")
        compare("rated event", {tuple(row) for row in rated}, set(self._rated))
        facts = rows(settings, "SELECT topic, input_partition, input_offset FROM facts_applied")
        compare("fact", {tuple(row) for row in facts}, set(self._applied))
        letters = {json.dumps(row) for row in rows(settings, LETTERS)}
        compare("letter", letters, {json.dumps(row) for row in self._letter_rows.values()})
        ((rejects,),) = rows(settings, "SELECT count() FROM sink_rejects")
        if rejects:
            self.differences.note_wrong(f"{rejects} rows are in sink_rejects")
        self.counts["rows_in_clickhouse"] = len(rated) + len(facts) + len(letters)

    def _letters(self, contents: Contents) -> dict[At, _Letter]:
        parts: dict[At, list[Any]] = defaultdict(list)
        for record in contents.records[topics.DEAD_LETTERS]:
            originals, ours = headers.take_apart(record.headers)
            at = (ours[headers.TOPIC].decode(), contents.partition, int(ours[headers.OFFSET]))
            parts[at].append((record, originals, ours))
            self._letter_rows[record.partition, record.offset] = [
                record.partition,
                record.offset,
                ours[headers.REASON].decode(),
                *at,
                b64encode(record.key or b"").decode(),
                sha256(record.value or b"").hexdigest().upper(),
                [
                    [
                        name.encode("utf-8", "surrogateescape").hex().upper(),
                        b64encode(text or b"").decode(),
                    ]
                    for name, text in originals
                ],
            ]
        return {at: self._joined(at, pieces) for at, pieces in parts.items()}

    def _joined(self, at: At, parts: list[Any]) -> _Letter:
        record, originals, ours = parts[0]
        value = record.value if len(parts) == 1 else b"".join(each.value for each, _, _ in parts)
        part_names = [added.get(headers.PART, b"1/1").decode() for _, _, added in parts]
        if part_names != [f"{number + 1}/{len(parts)}" for number in range(len(parts))]:
            self.differences.note_duplicated(f"the dead letter of {at} has parts {part_names}")
        said = (record.key, value, tuple(originals))
        return _Letter(ours[headers.REASON].decode(), said, headers.PACKED in ours)

    def _input(self, at: At, record: Any, letters: dict[At, _Letter]) -> None:
        said: Said = (record.key, record.value, tuple(record.headers))
        sent = self._sent.pop(at, None)
        letter = letters.pop(at, None)
        stands_for = 1
        if sent is not None and said != (sent.key, sent.value, sent.headers):
            stands_for = self._whole_batch(at, record, letter)
        elif sent is None:
            self.counts["forwarded"] += 1
            self._forwarded[_forwarded_from(said)] += 1
        self.counts["records"] += stands_for
        if letter is not None:
            self.counts["dead_letters"] += stands_for
            self.reasons[letter.reason] += stands_for
            self._compare_letter(at, said, letter)
        is_rated = at[0] == topics.USAGE and at[1:] in self._rated
        is_applied = at in self._applied
        if letter is not None and (is_rated or is_applied):
            self.differences.note_duplicated(f"{at} is charged or applied, and a dead letter")
        if at[0] != topics.USAGE and (letter is not None or is_applied):
            version = _version(at[0], record)
            if version is not None:
                self._versions.add(version)
        if is_rated or is_applied:
            self.counts["rated" if is_rated else "facts_applied"] += 1
        elif letter is None:
            (self._open_usage if at[0] == topics.USAGE else self._open_facts).append((at, record))

    def _whole_batch(self, at: At, record: Any, letter: _Letter | None) -> int:
        """How many records an unreadable batch stands for; they are accounted for with it."""
        packed = record.value or b""
        count = int.from_bytes(packed[57:61], "big")
        if letter is None or not letter.is_packed or not 0 < count < 10_000:
            self.differences.note_wrong(f"{at} is not what was sent: {packed!r:.100}")
            return 1
        for number in range(1, count):
            if self._sent.pop((*at[:2], at[2] + number), None) is None:
                self.differences.note_wrong(f"{at} stands for {count} records, which were not sent")
        self.counts["in_unreadable_batches"] += count
        return count

    def _compare_letter(self, at: At, said: Said, letter: _Letter) -> None:
        if letter.is_packed and letter.said[1] != said[1]:
            (unpacked,) = fetcher.MemoryRecords(letter.said[1]).next_batch()
            is_same = not isinstance(unpacked, Unreadable) and said == (
                unpacked.key,
                unpacked.value,
                tuple(unpacked.headers),
            )
        else:
            is_same = letter.said == said
        if not is_same:
            self.differences.note_wrong(f"the dead letter of {at} is not its record")

    def _leftover_usage(self, at: At, record: Any) -> None:
        came = (record.value, tuple(record.headers))
        if self._forwarded[came]:
            self._forwarded[came] -= 1
            self.counts["sent_on"] += 1
            return
        try:
            usage = read_usage(
                record.value,
                record.key,
                list(record.headers),
                instant(record.timestamp),
                timedelta(days=self._settings.max_event_age_days),
            )
        except Refused as refused:
            self.differences.note_lost(f"{at} should be refused as {refused.reason}")
            return
        if (usage.organization_id, usage.source, usage.event_id) in self._identities:
            self.counts["duplicates"] += 1
        else:
            self.differences.note_lost(f"{at}: {record.value!r:.200}")


def _forwarded_from(said: Said) -> tuple[bytes | None, tuple[tuple[str, bytes | None], ...]]:
    """The value and headers of the record that was sent on."""
    names = [name for name, _ in said[2]]
    if headers.FORWARDED not in names:
        return said[1], said[2]
    last = len(names) - 1 - names[::-1].index(headers.FORWARDED)
    return said[1], said[2][:last]


def _version(topic: str, record: Any) -> tuple[str, str, int] | None:
    try:
        fact = json.loads(record.value or b"")
        return topic, str(fact["organization_id"]), int(fact["version"])
    except (ValueError, RecursionError, TypeError, KeyError, OverflowError):
        return None
