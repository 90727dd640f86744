"""One partition of the pipeline without engines: its real steps, on a simulated clock.

What it leaves behind has the shape that the verifier reads from Kafka, so that a test can tamper.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cli.verification.cast import ALIAS_SECRET
from cli.verification.messages import Expected, Message
from cli.verification.topic_contents import Contents
from cli.verification.workload import Workload
from schemas import codec, topics
from schemas.settings import Settings
from streams.app import changelog_of
from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.seen import pack
from streams.exactly_once.state import Codec, PartitionState
from streams.exactly_once.transaction import Transaction
from streams.steps import FactStep, ForfeitStep, UsageStep

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
SETTINGS = Settings(partitions=1, alias_secret=ALIAS_SECRET, late_grace_s=3)


@dataclass
class Record:
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    offset: int
    timestamp: int
    partition: int = 0


class _Noted(Transaction):
    """Keeps what it is given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.noted: list[tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]]]] = []

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Any = (),
        partition: int | None = None,
    ) -> None:
        self.noted.append((topic, key, value, list(headers)))


@dataclass
class Offline:
    """Give it messages, let time pass, read `contents`."""

    directory: Path
    now: datetime = START
    records: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._store = LocalStore(self.directory, tag="t", window_ms=10**12, max_age_s=3600)
        self._state = PartitionState(
            self._store,
            Codec(codec.encode_state_key, codec.encode, codec.decode_state, changelog_of),
        )
        self._steps: dict[str, Any] = {name: FactStep(name, SETTINGS) for name in topics.FACTS}
        self._steps[topics.USAGE] = UsageStep(SETTINGS)
        self._tick = ForfeitStep(SETTINGS)

    def close(self) -> None:
        self._store.close()

    @property
    def contents(self) -> Contents:
        for name in topics.all_topics():
            self.records[name] += []
        return Contents(0, dict(self.records))

    def send(self, messages: Sequence[Message]) -> None:
        """All are appended, then decided: memberships, credits, usage."""
        first = {name: len(self.records[name]) for name in self._steps}
        for message in messages:
            self._append(message.topic, message.key, message.value, list(message.headers))
        for name in topics.INPUTS[1:] + topics.INPUTS[:1]:
            batch = self.records[name][first[name] :]
            if batch:
                self._commit(self._steps[name], batch)

    def send_usage_behind_the_clock(self, message: Message, seconds: float) -> None:
        """As a faulty pipeline would: the record comes, `seconds` pass, the clock
        does all that is due by then, and only then it is decided."""
        self._append(message.topic, message.key, message.value, list(message.headers))
        self.now += timedelta(seconds=seconds)
        self._commit(lambda transaction: self._tick(transaction, self.now))
        self._commit(self._steps[topics.USAGE], self.records[topics.USAGE][-1:])

    def pass_time(self, seconds: float) -> None:
        """The clock strikes, and is heard a little later."""
        self.now += timedelta(seconds=seconds)
        struck_at = self.now - timedelta(seconds=seconds / 4)
        self._commit(lambda transaction: self._tick(transaction, struck_at))

    def _commit(self, step: Any, *batch: Any) -> None:
        self.now += timedelta(milliseconds=10)
        transaction = _Noted(0, self._state, self._store, self.now, None)
        step(*batch, transaction)
        for topic, key, value, headers in transaction.noted:
            self._append(topic, key, value, headers)
        changes = self._state.changes()
        for topic, raw_key, raw in changes:
            if topic == topics.BALANCES:
                self._append(topic, raw_key, raw, [])
        self._store.seen.insert_packed(pack(transaction.seen), 1)
        self._store.write([(key, value) for _, key, value in changes], {})
        self._state.committed()

    def _append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        log = self.records[topic]
        log.append(Record(key, value, headers, len(log), int(self.now.timestamp() * 1000)))


def played(directory: Path, events: int, seed: int) -> tuple[Contents, Expected, datetime]:
    """A whole workload through one offline partition; and when its clock had done its work."""
    workload = Workload(events, organizations=4, partitions=1, seed=seed)
    offline = Offline(directory)
    try:
        offline.send(list(workload.opening(offline.now)))
        offline.send(list(workload.arrival(offline.now)))
        while workload.remaining:
            offline.send(list(workload.burst(100, offline.now)))
            offline.pass_time(1.0)
        offline.pass_time(60.0)
        return offline.contents, workload.expected, offline.now
    finally:
        offline.close()
