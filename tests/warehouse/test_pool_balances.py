"""The view `pool_balances` equals the worker's pools, grant by grant, whatever happened to them."""

from typing import Any

import pytest

from cli.verification.differences import Differences
from cli.verification.pool_check import compare_pools, last_pools
from deploy.embedded import EmbeddedClickHouse
from schemas import records, topics
from schemas.codec import decode_fact_applied, decode_posting, decode_rated
from schemas.records import INT64_MAX
from schemas.settings import Settings
from tests.decisions.worker import HOUR, ORG, T0
from tests.deploy.finance import ask
from tests.sinks.feed import rated_event
from tests.verification.offline import played
from tests.warehouse.conftest import Put
from tests.warehouse.playing import Playing

FIGURES = (
    "issued",
    "repaid",
    "revoked",
    "owed",
    "forfeited",
    "adjusted",
    "used",
    "remaining",
    "debt",
    "balance",
)


SCENARIOS = {
    "grants burn in their order": """
        grant later 50
        grant month 40 monthly until=+20h
        grant soon 30 until=+2h
        use 60
        use 25
        use 100
    """,
    "the website pays first": """
        grant web 30 web_3
        grant group 100 a
        at web_3 use 50
        use 20
    """,
    "a revoke of what was spent becomes debt, and a later grant repays it": """
        grant g 100
        use 70
        revoke g 60
        revoke g 40
        grant h 50
        grant i 90
        use 10
        revoke i 5
    """,
    "monthly credits expire and are forfeited": """
        grant m 100 monthly until=+1h
        use 30
        wait +30m
        use 5
        wait +26h
        use 9
        revoke m 100
        grant n 80 monthly until=+30d
    """,
    "adjustments of both signs": """
        grant g 100
        adjust 25
        adjust -110
        use 5
        adjust -40
        adjust 60
    """,
    "a deleted group": """
        grant g 100
        grant h 7 monthly until=+10d
        use 20
        delete a
        revoke g 100
    """,
    "a deleted group that owes": """
        grant g 100
        use 100
        revoke g 80
        delete a
    """,
    "as much as a pool can hold": f"""
        grant g {INT64_MAX - 1}
        use 1
        adjust 1
    """,
}


def view_pools(client: Any, organization_id: str = ORG) -> dict[str, dict[str, int]]:
    """Each row's figures without zeros, by `pool/grant`."""
    columns = ", ".join(f"{name}_micro" for name in FIGURES)
    rows = client.query(
        f"SELECT pool_id, grant_id, {columns} FROM pool_balances "
        "WHERE organization_id = {organization:String}",
        parameters={"organization": organization_id},
    ).result_rows
    return {
        f"{pool_id}/{grant_id}": {
            name: value for name, value in zip(FIGURES, values, strict=True) if value
        }
        for pool_id, grant_id, *values in rows
    }


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_the_view_equals_the_worker(
    client: Any, put: Put, settings: Settings, scenario: str
) -> None:
    playing = Playing()
    playing.play(scenario)
    playing.put_into(put)
    differences = Differences()
    compare_pools(settings, playing.pools, differences)
    assert differences.first == []
    for at, row in view_pools(client).items():
        assert row.get("remaining", 0) == (
            row.get("issued", 0)
            - row.get("repaid", 0)
            - (row.get("revoked", 0) - row.get("owed", 0))
            - row.get("forfeited", 0)
            - row.get("adjusted", 0)
            - row.get("used", 0)
        ), at


def test_a_whole_workload_of_the_crash_proof(
    put: Put, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With everything that `metering verify` sends: late, early, corrected, expired, deleted."""
    contents = played(tmp_path_factory.mktemp("offline"), events=2_000, seed=11)[0]
    kept = contents.records
    put("usage_rated_rows", [decode_rated(each.value) for each in kept[topics.USAGE_RATED]])
    put("ledger_rows", [decode_posting(each.value) for each in kept[topics.LEDGER]])
    put("facts_applied_rows", [decode_fact_applied(e.value) for e in kept[topics.FACTS_APPLIED]])
    pools = last_pools(contents)
    differences = Differences()
    compare_pools(settings, pools, differences)
    assert differences.first == []
    assert any(pool.grants for pool in pools.values())
    assert any(pool.debt_micro for pool in pools.values())


def test_every_figure_says_what_happened(client: Any, put: Put) -> None:
    playing = Playing()
    playing.play("""
        grant g 100
        use 70
        revoke g 80
        grant h 60
        adjust -3
        use 1
    """)
    playing.put_into(put)
    assert view_pools(client) == {
        "a/g": {"issued": 100, "revoked": 80, "owed": 50, "used": 70},
        "a/h": {"issued": 60, "repaid": 50, "adjusted": 3, "used": 1, "remaining": 6, "balance": 6},
        "a/": {},
    }


def test_a_row_says_what_its_grant_is(client: Any, put: Put) -> None:
    playing = Playing()
    playing.play("""
        grant g 100 web_3
        grant m 100 monthly until=+1h
        adjust 5
        use 7
    """)
    playing.put_into(put)
    rows = client.query(
        "SELECT pool_kind, pool_id, grant_id, kind, source, effective_at, expires_at, last_used_at "
        "FROM pool_balances ORDER BY grant_id"
    ).result_rows
    assert rows == [
        ("group", "a", "adjustment:3", "one_time", "adjustment:", T0, None, None),
        ("website", "web_3", "g", "one_time", "admin:x", T0, None, None),
        ("group", "a", "m", "monthly", "admin:x", T0, T0 + HOUR, T0),
    ]


def test_a_correction_gives_back(client: Any, put: Put) -> None:
    playing = Playing()
    playing.play("""
        grant g 100
        use 70
    """)
    playing.put_into(put)
    (event,) = playing.worker.rated
    back = rated_event(
        1,
        organization_id=ORG,
        event_id=event.event_id,
        revision=9,
        event_time=event.event_time,
        funding_group_id="a",
        cost_micro=-20,
        group_debit_micro=-20,
        overage_micro=0,
        allocations=[records.Allocation("group", "g", -20)],
    )
    put("usage_rated_rows", [back])
    assert view_pools(client)["a/g"] == {
        "issued": 100, "used": 50, "remaining": 50, "balance": 50,
    }  # fmt: skip


def test_sums_are_taken_in_128_bits(client: Any, put: Put) -> None:
    amount = 2**62
    rows = [
        rated_event(
            number,
            organization_id=ORG,
            website_id="web_3",
            cost_micro=amount,
            website_debit_micro=amount,
            overage_micro=0,
            allocations=[records.Allocation("website", "g", amount)],
        )
        for number in range(5)
    ]
    put("usage_rated_rows", rows)
    assert view_pools(client)["web_3/g"]["used"] == 5 * amount
    assert client.query("SELECT sum(used_micro) * 2 FROM pool_balances").result_rows == [
        (10 * amount,)
    ]


def test_only_the_organizations_rows_are_read(client: Any, put: Put) -> None:
    """The filter reaches the primary key of every stored table."""
    playing = Playing()
    playing.play("grant g 100")
    playing.worker.rated.append(rated_event(1))
    playing.put_into(put)
    plan = client.query(
        "EXPLAIN indexes = 1 SELECT * FROM pool_balances WHERE organization_id = 'org_7'"
    ).result_rows
    lines = [row[0] for row in plan]
    reads = [line for line in lines if "ReadFromMergeTree" in line]
    assert len(reads) == 4
    filtered = [line for line in lines if "organization_id in ['org_7', 'org_7']" in line]
    assert len(filtered) == len(reads)


def test_other_organizations_stay_apart(client: Any, put: Put, settings: Settings) -> None:
    playing = Playing()
    playing.play("grant g 100")
    playing.put_into(put)
    assert view_pools(client, "org_8") == {}
    differences = Differences()
    compare_pools(settings, {}, differences)
    assert differences.duplicated == 1


def test_finance_may_ask_for_it(
    client: Any, put: Put, settings: Settings, clickhouse: EmbeddedClickHouse
) -> None:
    playing = Playing()
    playing.play(SCENARIOS["the website pays first"])
    playing.put_into(put)
    statement = (
        "SELECT pool_kind, sum(remaining_micro), sum(debt_micro) FROM "
        f"{settings.clickhouse_database}.pool_balances WHERE organization_id = '{ORG}' "
        "GROUP BY pool_kind ORDER BY pool_kind"
    )
    status, _, text = ask(clickhouse, clickhouse.reader, statement)
    assert (status, text) == (200, b"group\t60\t0\nwebsite\t0\t0\n")
