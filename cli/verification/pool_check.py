"""The view `pool_balances` against the worker's pools, grant by grant."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from cli.verification.differences import Differences
from cli.verification.topic_contents import Contents
from cli.verification.warehouse_contents import rows
from schemas import topics
from schemas.codec import decode_state, decode_state_key
from schemas.records import Pool
from schemas.settings import Settings

PoolName = tuple[str, str, str]
"""Organization, kind and id."""

STATEMENT: Final = (
    "SELECT organization_id, pool_kind, pool_id, grant_id, toString(remaining_micro), "
    "toString(debt_micro), toString(balance_micro) FROM pool_balances "
    "WHERE remaining_micro != 0 OR debt_micro != 0"
)


def last_pools(contents: Contents) -> dict[PoolName, Pool]:
    """What the topic `balances` says in the end; pools of deleted groups are gone."""
    last = {record.key: record.value for record in contents.records[topics.BALANCES]}
    pools = {}
    for raw_key, raw in last.items():
        if raw is not None:
            _, organization_id, kind, pool_id = decode_state_key(raw_key)
            pools[organization_id, kind, pool_id] = decode_state("pool", raw)
    return pools


def compare_pools(
    settings: Settings, pools: Mapping[PoolName, Pool], differences: Differences
) -> None:
    """Of every pool: what remains of each grant, the debt, and the balance."""
    actual: dict[PoolName, dict[str, list[int]]] = defaultdict(dict)
    for *pool, grant_id, remaining, debt, balance in rows(settings, STATEMENT):
        amounts = [int(remaining), int(debt), int(balance)]
        actual[pool[0], pool[1], pool[2]][grant_id] = amounts
    for name in sorted(actual.keys() | pools.keys()):
        _compare(name, pools.get(name), actual.get(name, {}), differences)


def _compare(
    name: PoolName, pool: Pool | None, actual: dict[str, list[int]], differences: Differences
) -> None:
    if pool is None:
        differences.note_duplicated(
            f"pool_balances has {_short(actual)} in {name}, where no pool is"
        )
        return
    due = {
        grant.grant_id: [grant.remaining_micro, 0, grant.remaining_micro] for grant in pool.grants
    }
    if pool.debt_micro:
        due[""] = [0, pool.debt_micro, -pool.debt_micro]
    if actual != due:
        differences.note_wrong(f"pool_balances has {_short(actual)} in {name}, not {_short(due)}")
    balance = sum(amounts[2] for amounts in actual.values())
    if balance != pool.balance_micro:
        differences.note_wrong(f"{name} stands at {pool.balance_micro}, its rows at {balance}")


def _short(values: Any) -> str:
    text = repr(values)
    return text if len(text) <= 300 else f"{text[:300]}…"
