"""A verifier that finds nothing must be able to find something: what is tampered with, it reports.

The untampered half is a test of its own: 1,500 events through the real steps and the model agree.
"""

from collections.abc import Callable
from copy import copy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.verification.cast import FactLog
from cli.verification.differences import Differences
from cli.verification.messages import Expected, Message
from cli.verification.replay import Verdict, replay
from cli.verification.topic_contents import Contents
from schemas import records, topics
from tests.verification.offline import SETTINGS, Offline, Record, played

Played = tuple[Contents, Expected, datetime]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return played(tmp_path_factory.mktemp("offline"), events=1_500, seed=5)


def verdict(good: Played, tamper: Callable[[dict[str, list[Any]]], None]) -> Differences:
    contents, expected, settled_at = good
    records = {topic: [copy(each) for each in log] for topic, log in contents.records.items()}
    tamper(records)
    return replay(Contents(0, records), SETTINGS, expected, settled_at).differences


def changed(record: Record, **fields: Any) -> None:
    assert record.value is not None
    record.value = msgspec.json.encode({**msgspec.json.decode(record.value), **fields})


def value(record: Record) -> Any:
    assert record.value is not None
    return msgspec.json.decode(record.value)


def test_pipeline_and_model_agree_on_what_was_not_tampered_with(good: Played) -> None:
    contents, expected, settled_at = good
    result: Verdict = replay(contents, SETTINGS, expected, settled_at)
    assert result.differences.first == []
    assert result.counts["input"] >= 1_500
    assert result.counts["rated"] > 1_100
    assert result.counts["duplicates"] > 30
    assert len(result.reasons) > 12
    assert any(value(each)["kind"] == "forfeit" for each in contents.records[topics.LEDGER])
    assert any(value(each)["kind"] == "group_deleted" for each in contents.records[topics.LEDGER])


@pytest.mark.parametrize(
    "topic", [topics.USAGE_RATED, topics.DEAD_LETTERS, topics.LEDGER, topics.FACTS_APPLIED]
)
def test_a_dropped_record_is_missed(good: Played, topic: str) -> None:
    result = verdict(good, lambda records: records[topic].pop(len(records[topic]) // 2))
    assert result.lost >= 1 or result.wrong >= 1
    assert result.first


@pytest.mark.parametrize(
    "topic", [topics.USAGE_RATED, topics.DEAD_LETTERS, topics.LEDGER, topics.FACTS_APPLIED]
)
def test_a_record_that_is_there_twice_is_noticed(good: Played, topic: str) -> None:
    def twice(records: dict[str, list[Any]]) -> None:
        records[topic].insert(len(records[topic]) // 2, records[topic][len(records[topic]) // 2])

    result = verdict(good, twice)
    assert result.duplicated >= 1


@pytest.mark.parametrize(
    "field",
    [
        "cost_micro",
        "overage_micro",
        "website_debit_micro",
        "group_debit_micro",
        "quantity_micro",
        "price_version",
        "membership_version",
        "group_balance_micro",
        "website_balance_micro",
    ],
)
def test_an_amount_changed_by_one_is_noticed(good: Played, field: str) -> None:
    def tamper(records: dict[str, list[Any]]) -> None:
        record = records[topics.USAGE_RATED][700]
        changed(record, **{field: value(record)[field] + 1})

    result = verdict(good, tamper)
    assert (result.lost, result.duplicated, result.wrong) == (0, 0, 1)
    assert field in result.first[0]


@pytest.mark.parametrize("field", ["stamped_group_id", "member_id", "funding_group_id", "currency"])
def test_a_changed_stamp_is_noticed(good: Played, field: str) -> None:
    result = verdict(
        good, lambda records: changed(records[topics.USAGE_RATED][700], **{field: "other"})
    )
    assert result.wrong == 1


def test_two_rows_in_the_wrong_order_are_noticed(good: Played) -> None:
    def tamper(records: dict[str, list[Any]]) -> None:
        rated = records[topics.USAGE_RATED]
        rated[300], rated[301] = rated[301], rated[300]

    assert verdict(good, tamper).wrong >= 1


def test_a_posting_changed_by_one_is_noticed(good: Played) -> None:
    def tamper(records: dict[str, list[Any]]) -> None:
        record = records[topics.LEDGER][10]
        changed(record, amount_micro=value(record)["amount_micro"] + 1)

    result = verdict(good, tamper)
    assert any("sums to" in text for text in result.first)


def test_a_balance_changed_by_one_is_noticed(good: Played) -> None:
    def tamper(records: dict[str, list[Any]]) -> None:
        record = records[topics.BALANCES][-1]
        changed(record, balance_micro=value(record)["balance_micro"] + 1)

    assert verdict(good, tamper).wrong == 1


@pytest.mark.parametrize("changed_field", ["value", "key", "headers"])
def test_a_dead_letter_with_other_bytes_is_noticed(good: Played, changed_field: str) -> None:
    def tamper(records: dict[str, list[Any]]) -> None:
        record = records[topics.DEAD_LETTERS][5]
        if changed_field == "headers":
            record.headers = [("more", b"x"), *record.headers]
        else:
            setattr(record, changed_field, (getattr(record, changed_field) or b"") + b"x")

    assert verdict(good, tamper).wrong == 1


def test_a_dead_letter_with_another_reason_is_noticed(good: Played) -> None:
    def tamper(records: dict[str, list[Any]]) -> None:
        record = records[topics.DEAD_LETTERS][5]
        record.headers = [
            (name, b"no_price_at_all" if name == "reason" else text)
            for name, text in record.headers
        ]

    assert verdict(good, tamper).wrong == 1


def test_usage_decided_before_an_earlier_fact_is_noticed(good: Played) -> None:
    def tamper(records: dict[str, list[Any]]) -> None:
        # The fact now was in its topic long before it was applied.
        records[topics.MEMBERSHIPS][-1].timestamp -= 5_000

    assert any("decided before a fact" in text for text in verdict(good, tamper).first)


def test_what_the_clock_did_not_do_is_missed(good: Played) -> None:
    def tamper(records: dict[str, list[Any]]) -> None:
        records[topics.LEDGER] = [
            each for each in records[topics.LEDGER] if value(each)["kind"] != "forfeit"
        ]

    assert verdict(good, tamper).total > 0


def test_credits_that_lapse_before_usage_which_came_in_time_are_noticed(tmp_path: Path) -> None:
    """The grace is 3 seconds: the event comes a second before its end and is decided after it."""
    offline = Offline(tmp_path)
    now = offline.now
    say, before = FactLog("org_1", topics.MEMBERSHIPS).publish, now - timedelta(days=1)
    grant = records.Granted(
        "grant_1", "website", "web_1", "one_time", 10**9, "admin:me", now - timedelta(seconds=1)
    )
    offline.send(
        [
            say(records.OrganizationCreated(), before, now),
            say(records.PriceSet("ai.tokens", 10**6), before, now),
            say(records.WebsiteAssigned("web_1", records.UNASSIGNED), before, now),
            FactLog("org_1", topics.CREDITS).publish(grant, before, now),
        ]
    )
    event = {
        "specversion": "1.0",
        "id": "late",
        "source": "editor",
        "type": "ai.tokens",
        "subject": "user_1",
        "time": now - timedelta(minutes=1),
        "data": {"quantity": 5, "website_id": "web_1"},
    }
    usage = Message(topics.USAGE, b"org_1", msgspec.json.encode(event))
    offline.send_usage_behind_the_clock(usage, 3)
    offline.close()
    (sentence,) = replay(offline.contents, SETTINGS, {}, offline.now).differences.first
    assert "lapsed before event 'late'" in sentence


def test_a_deletion_that_no_credits_felt_is_told_by_the_first_event_after_it(
    tmp_path: Path,
) -> None:
    offline = Offline(tmp_path)
    say, now = FactLog("org_1", topics.MEMBERSHIPS).publish, offline.now
    before, soon = now - timedelta(days=1), now + timedelta(seconds=1)
    late = {
        "specversion": "1.0",
        "source": "editor",
        "type": "ai.tokens",
        "subject": "user_1",
        "time": now - timedelta(minutes=1),
        "data": {"quantity": 5},
    }
    offline.send(
        [
            say(records.OrganizationCreated(), before, now),
            say(records.PriceSet("ai.tokens", 10**6), before, now),
            say(records.GroupCreated("group_1"), before, now),
            say(records.MemberAssigned("user_1", "group_1", "api"), before, now),
            say(records.GroupDeleted("group_1"), soon, now),
            Message(topics.USAGE, b"org_1", msgspec.json.encode({**late, "id": "before"})),
        ]
    )
    offline.pass_time(2)
    grant = records.Granted("grant_1", "group", "group_1", "one_time", 10**9, "admin:me")
    offline.send([FactLog("org_1", topics.CREDITS).publish(grant, before, now)])
    offline.send([Message(topics.USAGE, b"org_1", msgspec.json.encode({**late, "id": "after"}))])
    offline.close()
    funded = [value(each)["funding_group_id"] for each in offline.records[topics.USAGE_RATED]]
    assert funded == ["group_1", ""]
    assert replay(offline.contents, SETTINGS, {}, offline.now).differences.first == []
