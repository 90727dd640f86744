"""The generator: the same seed gives the same bytes, and the pipeline's code reads all of them."""

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime

import pytest

from cli import workload
from schemas.codec import decode_credit, decode_membership
from schemas.records import MemberAlias, MemberAssigned
from tests.cli.conftest import RunCommand

START = datetime(2026, 11, 1, tzinfo=UTC)
PLAN = workload.Plan(events=2_000, organizations=12, seed=7, start=START)
SECRET = b"sixteen characters"


def test_the_same_seed_gives_the_same_bytes() -> None:
    again = workload.Plan(events=2_000, organizations=12, seed=7, start=START)
    other = workload.Plan(events=2_000, organizations=12, seed=8, start=START)
    assert list(workload.usage(PLAN)) == list(workload.usage(again))
    assert list(workload.memberships(PLAN, SECRET)) == list(workload.memberships(again, SECRET))
    assert list(workload.credits(PLAN)) == list(workload.credits(again))
    assert list(workload.usage(PLAN)) != list(workload.usage(other))


def test_more_events_leave_the_facts_as_they_are() -> None:
    more = workload.Plan(events=9_000, organizations=12, seed=7, start=START)
    assert list(workload.memberships(PLAN)) == list(workload.memberships(more))
    assert list(workload.credits(PLAN)) == list(workload.credits(more))


def test_versions_are_gap_free_and_every_fact_decodes() -> None:
    decoded = [
        [decode_membership(line) for line in workload.memberships(PLAN, SECRET)],
        [decode_credit(line) for line in workload.credits(PLAN)],
    ]
    for records in decoded:
        versions = defaultdict(list)
        for record in records:
            versions[record.organization_id].append(record.version)
        for numbers in versions.values():
            assert numbers == list(range(1, len(numbers) + 1))


def test_members_move_and_some_have_aliases() -> None:
    facts = [decode_membership(line) for line in workload.memberships(PLAN, SECRET)]
    moved = [fact for fact in facts if fact.effective_at > START]
    assert moved
    assert all(isinstance(fact.fact, MemberAssigned) for fact in moved)
    assert any(isinstance(fact.fact, MemberAlias) for fact in facts)


def test_without_a_secret_there_are_no_aliases() -> None:
    facts = [decode_membership(line).fact for line in workload.memberships(PLAN)]
    assert not any(isinstance(fact, MemberAlias) for fact in facts)


def test_usage_is_skewed_and_unique() -> None:
    events = [json.loads(line) for line in workload.usage(PLAN)]
    assert len({event["id"] for event in events}) == len(events) == 2_000
    by_organization = Counter(event["organizationid"] for event in events)
    assert by_organization["org_7_1"] > 3 * by_organization["org_7_12"] > 0
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    quantities = [event["data"]["quantity"] for event in events]
    assert {type(quantity) for quantity in quantities} == {int, str}


def test_duplicates_are_copies_and_come_on_top() -> None:
    plan = workload.Plan(events=1_000, organizations=3, seed=1, start=START, duplicates=0.2)
    lines = list(workload.usage(plan))
    assert len(set(lines)) == 1_000
    assert 1_100 < len(lines) < 1_300


def test_a_plan_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="organizations"):
        workload.Plan(events=1, organizations=0, seed=1, start=START)
    with pytest.raises(ValueError, match="probability"):
        workload.Plan(events=1, organizations=1, seed=1, start=START, duplicates=2)


def test_the_command_prints_lines(run_command: RunCommand) -> None:
    arguments = ("generate", "--events", "5", "--organizations", "2", "--start", "2026-11-01")
    lines = run_command(*arguments).stdout.splitlines()
    assert len(lines) == 5
    assert json.loads(lines[0])["time"] == "2026-11-01T00:00:00.000000Z"
    facts = run_command(*arguments, "--topic", "memberships").stdout.splitlines()
    assert decode_membership(facts[0]).version == 1
    assert run_command(*arguments, "--topic", "ledger").returncode == 2
