"""Dead letters as the topic has them: reading, taking apart, sending back.

A letter is named `partition:offset`, of `dead-letters` itself. What a replay sends is the original
again: key, bytes and headers without those that the worker added, and the time at which the broker
first took it, so that its age is judged as of then.
"""

import json
import os
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.kafka import read_to_end
from schemas import headers
from schemas.reasons import REPLAYABLE, Reason
from schemas.settings import DAY_S, Settings
from schemas.topics import DEAD_LETTERS, ORIGINAL_APPEND_TIME_HEADER, USAGE

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of `dead-letters`; times are milliseconds since 1970."""

    partition: int
    offset: int
    lettered_ms: int
    """When it became a dead letter."""
    key: bytes | None
    value: bytes | None
    original_headers: tuple[Header, ...]
    reason: str
    detail: str
    topic: str
    """Where it came from, unprefixed."""
    original_partition: int
    original_offset: int
    appended_ms: int
    part: str
    """`2/3` where the value was too large for one record, else empty."""
    is_packed: bool
    """Whether the value is a whole record batch as Kafka keeps it."""

    @property
    def name(self) -> str:
        return f"{self.partition}:{self.offset}"

    @property
    def organization_id(self) -> str:
        return (self.key or b"").decode("utf-8", "replace")

    @property
    def is_first_part(self) -> bool:
        return not self.part or self.part.startswith("1/")

    def as_dict(self) -> dict[str, Any]:
        """For `--format json`: all but the value."""
        return {
            "id": self.name,
            "reason": self.reason,
            "detail": self.detail,
            "organization_id": self.organization_id,
            "lettered_at": text_of(self.lettered_ms),
            "topic": self.topic,
            "partition": self.original_partition,
            "offset": self.original_offset,
            "appended_at": text_of(self.appended_ms),
            "value_bytes": len(self.value or b""),
            "part": self.part,
            "packed": self.is_packed,
        }


def take_apart(record: Any) -> Letter:
    """A consumer record as a letter, whoever wrote it."""
    originals, added = headers.take_apart(record.headers)
    ours = {name: raw.decode("utf-8", "replace") for name, raw in added.items()}
    return Letter(
        partition=record.partition,
        offset=record.offset,
        lettered_ms=record.timestamp,
        key=record.key,
        value=record.value,
        original_headers=tuple(originals),
        reason=ours.get(headers.REASON, "unknown"),
        detail=ours.get(headers.DETAIL, ""),
        topic=ours.get(headers.TOPIC, ""),
        original_partition=_number(ours.get(headers.PARTITION, ""), -1),
        original_offset=_number(ours.get(headers.OFFSET, ""), -1),
        appended_ms=_number(ours.get(headers.APPEND_TIME_MS, ""), record.timestamp),
        part=ours.get(headers.PART, ""),
        is_packed=headers.PACKED in ours,
    )


def _number(digits: str, otherwise: int) -> int:
    return int(digits) if re.fullmatch("[0-9]{1,18}", digits) else otherwise


def replay_headers(letter: Letter) -> list[Header]:
    """Those of the original, and the time of its first append.

    Without the mark of a forwarded event: it may be forwarded once more.
    """
    pairs = [(name, raw) for name, raw in letter.original_headers if name != headers.FORWARDED]
    if all(name != ORIGINAL_APPEND_TIME_HEADER for name, _ in pairs):
        pairs.append((ORIGINAL_APPEND_TIME_HEADER, str(letter.appended_ms).encode()))
    return pairs


def first_appended_ms(letter: Letter) -> int:
    """When the broker first took it: a letter of a replay says so in a header."""
    header = dict(letter.original_headers).get(ORIGINAL_APPEND_TIME_HEADER) or b""
    return _number(header.decode("ascii", "replace"), letter.appended_ms)


def why_not_replayed(letter: Letter, settings: Settings, now_ms: int) -> str:
    """Empty where a replay is allowed."""
    if letter.topic != USAGE:
        return "facts are never replayed, only published again"
    if letter.reason not in {reason.value for reason in REPLAYABLE}:
        return f"`{letter.reason}` would be refused again"
    if letter.part:
        return "kept in parts"
    if letter.is_packed:
        return "kept as Kafka packed it"
    days_limit = settings.dedupe_window_days - 1
    if now_ms - first_appended_ms(letter) > days_limit * DAY_S * 1000:
        # Within the window a second replay, from another machine too, is a duplicate and free.
        return f"older than {days_limit} days: it could no longer be told from a repetition"
    return ""


async def read_letters(settings: Settings) -> AsyncIterator[Letter]:
    """Every committed letter that was there when reading began; in order within a partition.

    Raises `Failure` when there is no such topic or Kafka stops answering.
    """
    async for record in read_to_end(settings, DEAD_LETTERS):
        yield take_apart(record)


class ReplayRecord:
    """Which letters were replayed from here, a line each in the data directory.

    It saves work and tells people; what makes a second replay harmless is the worker's dedupe.
    """

    def __init__(self, settings: Settings) -> None:
        self._path: Path = settings.data_dir / "replayed.jsonl"
        self._cluster_topic = f"{settings.kafka_bootstrap}/{settings.topic(DEAD_LETTERS)}"
        self._known = self._read()

    def has(self, letter: Letter) -> bool:
        return self._identity(letter) in self._known

    def add(self, letters: Sequence[Letter]) -> None:
        """Durable when it returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            for letter in letters:
                line = {"letter": self._identity(letter), "at": datetime.now(UTC).isoformat()}
                file.write(json.dumps(line) + "\n")
                self._known.add(self._identity(letter))
            file.flush()
            os.fsync(file.fileno())

    def _identity(self, letter: Letter) -> str:
        # The time is part of it, because an emptied broker gives the same offsets to other letters.
        return f"{self._cluster_topic}/{letter.name}@{letter.lettered_ms}"

    def _read(self) -> set[str]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return set()
        known = set()
        for line in lines:
            try:
                known.add(json.loads(line)["letter"])
            except (ValueError, KeyError):
                # A line that a crash cut off: its letter counts as not replayed, which is harmless.
                continue
        return known


def is_wanted(letter: Letter, reason: Reason | None, organization: str | None) -> bool:
    return (reason is None or letter.reason == reason.value) and (
        organization is None or letter.organization_id == organization
    )


def text_of(milliseconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return "a time that no calendar has"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
