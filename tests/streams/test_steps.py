"""The steps on a real local store: what a batch fills into a transaction."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.partitioner import murmur2

from schemas import codec, headers, topics
from schemas.reasons import Reason
from schemas.settings import Settings
from streams import dead_letters, steps
from streams.app import changelog_of
from streams.exactly_once import StoreError
from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.seen import pack
from streams.exactly_once.state import Codec, PartitionState
from streams.exactly_once.transaction import Transaction
from streams.steps import FactStep, ForfeitStep, UsageStep

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SETTINGS = Settings(alias_secret="a secret of many characters", late_grace_s=3600)
ORGANIZATION = "org_7"
HERE = (murmur2(ORGANIZATION.encode()) & 0x7FFFFFFF) % SETTINGS.partitions


@dataclass
class Record:
    value: bytes | None
    key: bytes | None = ORGANIZATION.encode()
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    offset: int = 0
    partition: int = HERE
    timestamp: int = int(NOW.timestamp() * 1000)


class Recorded(Transaction):
    """A transaction that also keeps what was emitted, by topic."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.emitted: list[
            tuple[str, bytes | None, bytes | None, dict[str, bytes], int | None]
        ] = []

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Any = (),
        partition: int | None = None,
    ) -> None:
        self.emitted.append((topic, key, value, dict(headers), partition))

    def of(self, topic: str) -> list[Any]:
        return [row for row in self.emitted if row[0] == topic]

    def reasons(self) -> list[str]:
        return [row[3][headers.REASON].decode() for row in self.of(topics.DEAD_LETTERS)]


class Partition:
    """One partition's state, committed transaction by transaction without a broker."""

    def __init__(self, directory: Path) -> None:
        self.store = LocalStore(directory, tag="t", window_ms=10**9, max_age_s=3600)
        self.state = PartitionState(
            self.store,
            Codec(codec.encode_state_key, codec.encode, codec.decode_state, changelog_of),
        )

    def run(self, step: Any, *records: Record, now: datetime = NOW) -> Recorded:
        transaction = Recorded(HERE, self.state, self.store, now, None)
        step(*([records] if records else []), transaction)
        self.commit(transaction)
        return transaction

    def commit(self, transaction: Transaction) -> None:
        self.store.seen.insert_packed(pack(transaction.seen), 1)
        self.store.write([(key, value) for _, key, value in self.state.changes()], {})
        self.state.committed()


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[Partition]:
    made = Partition(tmp_path)
    yield made
    made.store.close()


def usage(identity: str = "e1", quantity: int = 5, **changes: Any) -> Record:
    event = {
        "specversion": "1.0",
        "id": identity,
        "source": "editor",
        "type": "ai.tokens",
        "subject": "user_1",
        "organizationid": ORGANIZATION,
        "data": {"quantity": quantity},
    }
    record_fields = {
        name: changes.pop(name) for name in list(changes) if name in Record.__annotations__
    }
    return Record(value=msgspec.json.encode({**event, **changes}), **record_fields)


def _stranger() -> str:
    """An organization of another partition."""
    return next(
        name
        for name in (f"org_{number}" for number in range(100))
        if (murmur2(name.encode()) & 0x7FFFFFFF) % SETTINGS.partitions != HERE
    )


def facts(*rows: dict[str, Any], first: int = 1, organization: str = ORGANIZATION) -> list[Record]:
    return [
        Record(
            msgspec.json.encode(
                {
                    "organization_id": organization,
                    "version": first + number,
                    "recorded_at": NOW - timedelta(days=3),
                    "effective_at": NOW - timedelta(days=3),
                    "fact": row,
                }
            ),
            key=organization.encode(),
        )
        for number, row in enumerate(rows)
    ]


def known_organization(partition: Partition) -> None:
    partition.run(
        FactStep(topics.MEMBERSHIPS, SETTINGS),
        *facts(
            {"type": "organization_created"},
            {"type": "price_set", "meter": "ai.tokens", "micro_per_million_units": 1_000_000},
            {"type": "website_assigned", "website_id": "w1", "group_id": "group_unassigned"},
        ),
    )


def test_a_duplicate_is_counted_and_a_conflict_refused(partition: Partition) -> None:
    known_organization(partition)
    step = UsageStep(SETTINGS)
    first = partition.run(step, usage("e1"), usage("e1"), usage("e1", quantity=6), usage("e2"))
    assert len(first.of(topics.USAGE_RATED)) == 2
    assert first.metrics["duplicates"] == 1
    assert first.reasons() == ["conflict"]
    later = partition.run(step, usage("e1"), usage("e2", quantity=1))
    assert later.of(topics.USAGE_RATED) == []
    assert later.metrics["duplicates"] == 1
    assert later.reasons() == ["conflict"]


def test_a_refused_event_is_not_seen(partition: Partition) -> None:
    step = UsageStep(SETTINGS)
    assert partition.run(step, usage("e1")).reasons() == ["unknown_organization"]
    known_organization(partition)
    assert len(partition.run(step, usage("e1")).of(topics.USAGE_RATED)) == 1


def test_a_dead_letter_keeps_its_bytes_and_says_where_it_was(partition: Partition) -> None:
    record = Record(b"\xff\x00 no json", key=None, headers=[("a", b"1")], offset=17)
    refused = partition.run(UsageStep(SETTINGS), record).of(topics.DEAD_LETTERS)
    [(_, key, value, found, to)] = refused
    assert (key, value, to) == (None, b"\xff\x00 no json", None)
    assert found["a"] == b"1"
    assert found[headers.OFFSET] == b"17"
    assert found[headers.TOPIC] == b"usage"
    assert found[headers.APPEND_TIME_MS] == str(record.timestamp).encode()
    assert found[headers.DETAIL]


def test_a_value_too_large_for_one_record_is_kept_in_parts(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PART_BYTES", 40_000)
    value = random.Random(1).randbytes(100_000)
    refused = partition.run(UsageStep(SETTINGS), Record(value)).of(topics.DEAD_LETTERS)
    assert b"".join(row[2] for row in refused) == value
    assert [row[3][headers.PART] for row in refused] == [b"1/3", b"2/3", b"3/3"]


def test_an_event_in_another_partition_is_sent_on_once(partition: Partition) -> None:
    known_organization(partition)
    stranger = _stranger()
    home = (murmur2(stranger.encode()) & 0x7FFFFFFF) % SETTINGS.partitions
    record = usage(organizationid=stranger, key=None, headers=[("a", b"1")])
    sent = partition.run(UsageStep(SETTINGS), record)
    [(topic, key, value, found, to)] = sent.emitted
    assert (topic, key, value, to) == (topics.USAGE, stranger.encode(), record.value, home)
    assert found["a"] == b"1"
    assert found[topics.ORIGINAL_APPEND_TIME_HEADER] == str(record.timestamp).encode()
    assert sent.metrics["misrouted"] == 1
    again = Record(record.value, key, list(found.items()))
    assert partition.run(UsageStep(SETTINGS), again).reasons() == ["wrong_partition"]


def test_a_decision_that_raises_refuses_its_event_only(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_organization(partition)
    decide = steps.decide_usage

    def broken(event: Any, *rest: Any) -> Any:
        if event.event_id == "bad":
            raise ZeroDivisionError
        return decide(event, *rest)

    monkeypatch.setattr(steps, "decide_usage", broken)
    done = partition.run(UsageStep(SETTINGS), usage("e1"), usage("bad"), usage("e2"))
    assert len(done.of(topics.USAGE_RATED)) == 2
    assert done.reasons() == [Reason.INTERNAL_ERROR]
    assert b"ZeroDivisionError" in done.of(topics.DEAD_LETTERS)[0][3][headers.DETAIL]


def test_a_bug_that_hits_everything_refuses_each_event_and_goes_on(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_organization(partition)
    monkeypatch.setattr(steps, "decide_usage", None)
    step = UsageStep(SETTINGS)
    done = partition.run(step, *(usage(f"e{number}") for number in range(300)))
    assert done.reasons() == [Reason.INTERNAL_ERROR] * 300
    assert done.metrics["internal_errors"] == 300
    monkeypatch.undo()
    later = partition.run(step, *(usage(f"e{number}") for number in range(300)))
    assert len(later.of(topics.USAGE_RATED)) == 300


def test_a_disk_that_cannot_be_read_is_no_fault_of_the_event(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_key: bytes) -> None:
        raise StoreError

    monkeypatch.setattr(partition.store, "get", unreadable)
    with pytest.raises(StoreError):
        partition.run(UsageStep(SETTINGS), usage("e1"))
    with pytest.raises(StoreError):
        partition.run(
            FactStep(topics.MEMBERSHIPS, SETTINGS), *facts({"type": "organization_created"})
        )


def test_a_fact_in_another_partition_is_refused_and_changes_nothing(partition: Partition) -> None:
    stranger = _stranger()
    [fact] = facts({"type": "organization_created"}, organization=stranger)
    refused = partition.run(FactStep(topics.MEMBERSHIPS, SETTINGS), fact)
    assert refused.reasons() == [Reason.WRONG_PARTITION]
    assert refused.of(topics.FACTS_APPLIED) == []
    assert partition.state.get(("organization", stranger)) is None
    [(_, key, value, _, _)] = refused.of(topics.DEAD_LETTERS)
    assert (key, value) == (stranger.encode(), fact.value)


def test_a_record_whose_time_no_calendar_has_is_judged_as_of_its_end(partition: Partition) -> None:
    known_organization(partition)
    records = [usage(f"e{at}", timestamp=at) for at in (-1, 0, 253_402_300_800_000, 2**62)]
    done = partition.run(UsageStep(SETTINGS), *records)
    assert len(done.of(topics.USAGE_RATED)) + len(done.reasons()) == len(records)


def test_what_expired_is_forfeited_after_the_grace_once(partition: Partition) -> None:
    known_organization(partition)
    [grant] = facts(
        {
            "type": "granted",
            "grant_id": "g",
            "pool_kind": "website",
            "pool_id": "w1",
            "kind": "monthly",
            "amount_micro": 1000,
            "source": "admin:x",
            "expires_at": NOW,
        }
    )
    partition.run(FactStep(topics.CREDITS, SETTINGS), grant)
    step = ForfeitStep(SETTINGS)
    early = partition.run(step, now=NOW + timedelta(seconds=3599))
    assert early.emitted == []
    done = partition.run(step, now=NOW + timedelta(seconds=3600))
    postings = [msgspec.json.decode(row[2]) for row in done.of(topics.LEDGER)]
    assert {row["entry_id"] for row in postings} == {"forfeit:g"}
    assert sorted(row["amount_micro"] for row in postings) == [-1000, 1000]
    assert done.metrics["forfeited"] == 1000
    assert partition.run(step, now=NOW + timedelta(days=9)).emitted == []


def _grants_that_expire(count: int) -> list[Record]:
    return facts(
        *(
            {
                "type": "granted",
                "grant_id": f"g{number}",
                "pool_kind": "website",
                "pool_id": "w1",
                "kind": "monthly",
                "amount_micro": 1000,
                "source": "admin:x",
                "expires_at": NOW,
            }
            for number in range(count)
        )
    )


def test_what_expires_at_once_is_split_into_transactions(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_organization(partition)
    partition.run(FactStep(topics.CREDITS, SETTINGS), *_grants_that_expire(25))
    monkeypatch.setattr(steps, "FORFEITS_A_TRANSACTION", 10)
    step, forfeited = ForfeitStep(SETTINGS), []
    for is_more in (True, True, False):
        transaction = Recorded(
            HERE, partition.state, partition.store, NOW + timedelta(hours=2), None
        )
        assert step(transaction) is is_more
        forfeited.append(transaction.metrics["forfeited"])
        partition.commit(transaction)
    assert forfeited == [10_000, 10_000, 5_000]


def test_an_entry_of_the_clock_that_fails_stops_no_other(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_organization(partition)
    partition.run(FactStep(topics.CREDITS, SETTINGS), *_grants_that_expire(3))
    decide = steps.decide_forfeit

    def broken(key: Any, *rest: Any) -> Any:
        if key[-1] == "g1":
            raise ZeroDivisionError
        return decide(key, *rest)

    monkeypatch.setattr(steps, "decide_forfeit", broken)
    step, later = ForfeitStep(SETTINGS), NOW + timedelta(hours=2)
    done = partition.run(step, now=later)
    assert (done.metrics["forfeited"], done.metrics["internal_errors"]) == (2000, 1)
    monkeypatch.undo()
    assert partition.run(step, now=later).metrics["forfeited"] == 1000
