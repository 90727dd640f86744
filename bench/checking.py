"""Is an engine's result right? Every row it wrote, against the workload's own reckoning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from bench.reading import read_all
from bench.workload import Expected, Totals
from schemas.settings import Settings

PROBLEMS_SHOWN: Final = 5


class Row(msgspec.Struct, gc=False):
    """The part of a rated row that is checked."""

    organization_id: str
    event_id: str
    revision: int
    website_id: str
    funding_group_id: str
    cost_micro: int
    website_debit_micro: int
    group_debit_micro: int
    overage_micro: int
    website_balance_micro: int
    group_balance_micro: int


decode_row = msgspec.json.Decoder(Row).decode


@dataclass(slots=True)
class Result:
    """What an engine wrote."""

    totals: dict[str, Totals] = field(default_factory=dict)
    balances: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """After the last event of each pool."""
    numbers: set[int] = field(default_factory=set)
    rows: int = 0
    uneven: int = 0
    """Rows whose cost is not website + group + overage, or which are corrections."""

    def add(self, row: Row) -> None:
        name = row.organization_id
        totals = self.totals.get(name)
        if totals is None:
            totals = self.totals[name] = Totals()
        totals.rated += 1
        totals.cost += row.cost_micro
        totals.website += row.website_debit_micro
        totals.group += row.group_debit_micro
        totals.overage += row.overage_micro
        if row.website_id:
            self.balances[(name, "website", row.website_id)] = row.website_balance_micro
        self.balances[(name, "group", row.funding_group_id)] = row.group_balance_micro
        self.numbers.add(int(row.event_id[:8], 16))
        self.rows += 1
        covered = row.website_debit_micro + row.group_debit_micro + row.overage_micro
        self.uneven += row.cost_micro != covered or row.revision != 0


def differences(expected: Expected, result: Result) -> list[str]:
    """What is wrong, a sentence each; empty when the result is exact."""
    problems = []
    if result.rows != expected.rated:
        problems.append(f"{result.rows} rows instead of {expected.rated}")
    if len(result.numbers) != result.rows:
        problems.append(f"{result.rows - len(result.numbers)} events were rated twice")
    if result.uneven:
        problems.append(f"{result.uneven} rows do not add up")
    wrong = [
        name
        for name in expected.totals.keys() | result.totals.keys()
        if expected.totals.get(name) != result.totals.get(name)
    ]
    if wrong:
        name = min(wrong)
        problems.append(
            f"{len(wrong)} organizations have wrong sums: {name} has {result.totals.get(name)}, "
            f"must have {expected.totals.get(name)}"
        )
    problems += _wrong_balances(expected.balances, result.balances)
    return problems[:PROBLEMS_SHOWN]


def _wrong_balances(
    expected: Mapping[tuple[str, str, str], int], actual: Mapping[tuple[str, str, str], int]
) -> list[str]:
    # A pool without credits has the balance 0; one that no event asked for shows nowhere.
    wrong = [pool for pool, balance in actual.items() if expected.get(pool, 0) != balance]
    if not wrong:
        return []
    pool = min(wrong)
    return [
        f"{len(wrong)} pools have wrong balances: {pool} has {actual[pool]}, "
        f"must have {expected.get(pool, 0)}"
    ]


async def read_result(settings: Settings, topic: str) -> Result:
    """Reads a whole topic of rated rows, committed ones only."""
    result = Result()
    async for record in read_all(settings, topic):
        result.add(decode_row(record.value))
    return result
