"""The comparison with ClickHouse, on answers made from the records and then tampered with."""

from typing import Any

import pytest

from cli.verification import warehouse_check
from cli.verification.differences import Differences
from cli.verification.replay import replay
from cli.verification.topic_contents import Contents
from cli.verification.warehouse_check import compare_ledger, compare_partition, compare_spend
from schemas import topics
from schemas.codec import decode_posting, decode_rated
from tests.verification.offline import SETTINGS, played

Answers = dict[str, list[list[Any]]]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return played(tmp_path_factory.mktemp("offline"), events=300, seed=6)[0]


@pytest.fixture
def answers(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What a right ClickHouse answers, by the view that is asked; to be tampered with."""
    rated = [decode_rated(record.value) for record in contents.records[topics.USAGE_RATED]]
    ledger = [decode_posting(record.value) for record in contents.records[topics.LEDGER]]
    rows_by_view: Answers = {
        "FROM usage_rated": [warehouse_check._values(row) for row in rated],
        "FROM ledger": [
            [
                row.organization_id,
                row.entry_id,
                row.leg,
                row.account,
                row.amount_micro,
                row.balance_after_micro,
            ]
            for row in ledger
        ],
        "FROM facts_applied": [],
        "FROM dead_letters": [],
        "FROM sink_rejects": [],
    }
    monkeypatch.setattr(
        warehouse_check,
        "rows",
        lambda _, statement: next(rows for view, rows in rows_by_view.items() if view in statement),
    )
    return rows_by_view


def rated_differences(contents: Contents) -> Differences:
    """Of the rated rows alone."""
    differences = Differences()
    alone = {topic: [] for topic in contents.records} | {
        topics.USAGE_RATED: contents.records[topics.USAGE_RATED]
    }
    compare_partition(SETTINGS, Contents(0, alone), differences)
    return differences


def test_the_same_rows_are_no_difference(contents: Contents, answers: Answers) -> None:
    assert rated_differences(contents).first == []
    differences = Differences()
    compare_ledger(SETTINGS, [contents], differences)
    assert differences.first == []


def test_a_missing_row_is_lost(contents: Contents, answers: Answers) -> None:
    answers["FROM usage_rated"].pop(100)
    assert rated_differences(contents).lost == 1


def test_a_second_row_is_duplicated(contents: Contents, answers: Answers) -> None:
    answers["FROM usage_rated"].append(answers["FROM usage_rated"][100])
    assert rated_differences(contents).duplicated == 1


def test_a_changed_amount_is_wrong(contents: Contents, answers: Answers) -> None:
    at = warehouse_check.RATED_COLUMNS.index("cost_micro")
    answers["FROM usage_rated"][100][at] += 1
    assert rated_differences(contents).wrong == 1


def test_a_missing_posting_and_a_reject_are_reported(contents: Contents, answers: Answers) -> None:
    answers["FROM ledger"].pop()
    answers["FROM sink_rejects"].append(["usage-rated", 0, 1, "refused"])
    differences = Differences()
    compare_ledger(SETTINGS, [contents], differences)
    assert (differences.lost, differences.wrong) == (1, 1)


def test_a_sum_that_is_off_by_one_is_wrong(
    contents: Contents, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    everything, expected, settled_at = played(tmp_path_factory.mktemp("again"), 300, seed=6)
    verdict = replay(everything, SETTINGS, expected, settled_at)
    sums = [[*key, str(cost)] for key, cost in verdict.spend.items()]
    sums = [each for each in sums if (each[0], each[1]) not in verdict.deleted]
    verdict.deleted.clear()
    verdict.spend.clear()
    verdict.spend.update({(a, b, c): int(cost) for a, b, c, cost in sums})
    sums[0][3] = str(int(sums[0][3]) + 1)
    monkeypatch.setattr(warehouse_check, "rows", lambda *_: sums)
    differences = Differences()
    compare_spend(SETTINGS, verdict, differences)
    assert differences.wrong == 1
