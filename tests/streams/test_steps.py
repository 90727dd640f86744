"""The steps on a real local store: what a batch fills into a transaction."""

import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from aiokafka.partitioner import murmur2

from schemas import headers, topics
from schemas.reasons import Reason
from streams import steps
from streams.exactly_once import StoreError
from streams.exactly_once.transaction import Transaction
from streams.steps import FactStep, ForfeitStep, UsageStep
from tests.streams.partition import (
    HERE,
    NOW,
    SETTINGS,
    Partition,
    Record,
    Recorded,
    facts,
    known_organization,
    stranger_organization,
    usage,
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


def test_an_event_that_is_too_large_to_be_sent_on_is_refused(partition: Partition) -> None:
    stranger = stranger_organization()
    record = usage(organizationid=stranger, key=None, headers=[("a", b"x" * 1_048_300)])
    result = partition.run(UsageStep(SETTINGS), record)
    assert result.reasons() == [Reason.TOO_LARGE]
    assert result.of(topics.USAGE) == []


def test_every_batch_stays_within_what_its_topic_takes(partition: Partition) -> None:
    limits = {topic.name: topic.max_message_bytes for topic in topics.all_topics().values()}
    transaction = Transaction(HERE, partition.state, partition.store, NOW, None, limits)
    chance = random.Random(3)
    for topic in (topics.USAGE, topics.LEDGER, topics.FACTS_APPLIED, topics.STATE):
        for number in range(6_000):
            headers_of = [("a", b"1")] if number % 3 else []
            transaction.emit(topic, b"key", chance.randbytes(1_000), headers_of)
    sizes = [(topic, len(batch.packed())) for topic, _, batch in transaction.batches]
    assert all(size <= limits[topic] for topic, size in sizes)
    assert len({topic for topic, _ in sizes}) == 4


def test_an_event_in_another_partition_is_sent_on_once(partition: Partition) -> None:
    known_organization(partition)
    stranger = stranger_organization()
    home = (murmur2(stranger.encode()) & 0x7FFFFFFF) % SETTINGS.partitions
    record = usage(organizationid=stranger, key=None, headers=[("a", b"1")])
    sent = partition.run(UsageStep(SETTINGS), record)
    [(topic, key, value, sent_headers, to)] = sent.emitted
    assert (topic, key, value, to) == (topics.USAGE, stranger.encode(), record.value, home)
    assert sent_headers["a"] == b"1"
    assert sent_headers[topics.ORIGINAL_APPEND_TIME_HEADER] == str(record.timestamp).encode()
    assert sent.metrics["misrouted"] == 1
    again = Record(record.value, key, list(sent_headers.items()))
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
    result = partition.run(UsageStep(SETTINGS), usage("e1"), usage("bad"), usage("e2"))
    assert len(result.of(topics.USAGE_RATED)) == 2
    assert result.reasons() == [Reason.INTERNAL_ERROR]
    assert b"ZeroDivisionError" in result.of(topics.DEAD_LETTERS)[0][3][headers.DETAIL]


def test_a_bug_that_hits_everything_refuses_each_event_and_goes_on(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_organization(partition)
    monkeypatch.setattr(steps, "decide_usage", None)
    step = UsageStep(SETTINGS)
    result = partition.run(step, *(usage(f"e{number}") for number in range(300)))
    assert result.reasons() == [Reason.INTERNAL_ERROR] * 300
    assert result.metrics["internal_errors"] == 300
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
    stranger = stranger_organization()
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
    result = partition.run(UsageStep(SETTINGS), *records)
    assert len(result.of(topics.USAGE_RATED)) + len(result.reasons()) == len(records)


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
    result = partition.run(step, now=NOW + timedelta(seconds=3600))
    postings = [msgspec.json.decode(row[2]) for row in result.of(topics.LEDGER)]
    assert {row["entry_id"] for row in postings} == {"forfeit:g"}
    assert sorted(row["amount_micro"] for row in postings) == [-1000, 1000]
    assert result.metrics["forfeited"] == 1000
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
        assert step(transaction, transaction.now) is is_more
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
    result = partition.run(step, now=later)
    assert (result.metrics["forfeited"], result.metrics["internal_errors"]) == (2000, 1)
    monkeypatch.undo()
    assert partition.run(step, now=later).metrics["forfeited"] == 1000
