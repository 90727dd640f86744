"""The comparison of the view of pools is not blind: tampered answers are found."""

from types import SimpleNamespace
from typing import Any

import pytest

from cli.verification import pool_check
from cli.verification.differences import Differences
from cli.verification.pool_check import PoolName, compare_pools, last_pools
from cli.verification.topic_contents import Contents
from schemas import codec, topics
from schemas.records import Grant, Pool
from tests.verification.offline import SETTINGS, START

Rows = list[list[Any]]


@pytest.fixture
def pools() -> dict[PoolName, Pool]:
    """As the topic `balances` ends: one pool with grants, one that owes, one of a deleted group."""

    def grant(grant_id: str, left: int) -> Grant:
        return Grant(grant_id, "one_time", left, START, None, 1)

    both = Pool([grant("g1", 30), grant("g2", 2**62)], 0, 30 + 2**62)
    written: list[tuple[tuple[str, str, str], Pool | None]] = [
        (("org_1", "group", "a"), Pool([grant("g1", 31)], 0, 31)),
        (("org_1", "group", "b"), Pool([grant("g9", 5)], 0, 5)),
        (("org_1", "group", "a"), both),
        (("org_1", "group", "b"), None),
        (("org_2", "website", "web_3"), Pool([grant("g3", 7)], 20, -13)),
        (("org_2", "website", "empty"), Pool()),
    ]
    records = [
        SimpleNamespace(
            key=codec.encode_state_key(("pool", *name)),
            value=None if pool is None else codec.encode(pool),
        )
        for name, pool in written
    ]
    return last_pools(Contents(0, {topics.BALANCES: records}))


@pytest.fixture
def rows(pools: dict[PoolName, Pool], monkeypatch: pytest.MonkeyPatch) -> Rows:
    """What a right ClickHouse answers; to be tampered with."""
    answer: Rows = []
    for name, pool in pools.items():
        for grant in pool.grants:
            left = str(grant.remaining_micro)
            answer.append([*name, grant.grant_id, left, "0", left])
        if pool.debt_micro:
            debt = str(pool.debt_micro)
            answer.append([*name, "", "0", debt, f"-{debt}"])
    monkeypatch.setattr(pool_check, "rows", lambda *_: answer)
    return answer


def found(pools: dict[PoolName, Pool]) -> Differences:
    differences = Differences()
    compare_pools(SETTINGS, pools, differences)
    return differences


def test_the_same_pools_are_no_difference(pools: dict[PoolName, Pool], rows: Rows) -> None:
    assert [row[2:4] for row in rows] == [
        ["a", "g1"],
        ["a", "g2"],
        ["web_3", "g3"],
        ["web_3", ""],
    ]
    assert found(pools).first == []


def test_a_missing_grant_is_wrong(pools: dict[PoolName, Pool], rows: Rows) -> None:
    rows.pop(1)
    assert found(pools).wrong > 0


def test_an_amount_that_is_off_by_one_is_wrong(pools: dict[PoolName, Pool], rows: Rows) -> None:
    rows[0][4] = str(int(rows[0][4]) + 1)
    assert found(pools).wrong == 1


def test_a_debt_that_is_off_by_one_is_wrong(pools: dict[PoolName, Pool], rows: Rows) -> None:
    row = next(row for row in rows if row[3] == "")
    row[5] = str(int(row[5]) + 1)
    assert found(pools).wrong == 1


def test_a_grant_of_no_pool_is_there_too_often(pools: dict[PoolName, Pool], rows: Rows) -> None:
    rows.append(["org_0", "group", "never_there", "g", "5", "0", "5"])
    assert found(pools).duplicated == 1


def test_a_pool_that_is_not_shown_is_wrong(pools: dict[PoolName, Pool], rows: Rows) -> None:
    del rows[:]
    assert found(pools).wrong >= sum(
        bool(pool.grants or pool.debt_micro) for pool in pools.values()
    )
