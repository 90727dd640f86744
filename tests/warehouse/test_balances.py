"""What is shown of a pool: `total = used + remaining`, and which grants count."""

from datetime import timedelta
from typing import Any

import pytest

from tests.decisions.worker import HOUR, ORG, T0, instant
from tests.warehouse.conftest import Put
from tests.warehouse.playing import Playing
from warehouse.balances import (
    KindFigures,
    PoolFigures,
    list_grants,
    list_pools,
    organization_figures,
    pool_figures,
)


@pytest.fixture
def query(client: Any) -> Any:
    return lambda statement, parameters: client.query(statement, dict(parameters)).result_rows


def shown(kind: KindFigures) -> str:
    """`used/total`, and when it starts anew."""
    reset = f" until +{(kind.next_reset_at - T0) // HOUR}h" if kind.next_reset_at else ""
    return f"{kind.used_micro}/{kind.total_micro}{reset}"


CASES = {
    "nothing": ("", "0/0", "0/0"),
    "unspent": (
        """
        grant m 100 monthly until=+30h
        grant g 50
        """,
        "0/100 until +30h",
        "0/50",
    ),
    "monthly first": (
        """
        grant m 100 monthly until=+30h
        grant g 50
        use 120
        """,
        "100/100 until +30h",
        "20/50",
    ),
    "two monthly grants add up and the first reset is named": (
        """
        grant m 100 monthly until=+30h
        grant n 40 monthly until=+20h
        use 50
        """,
        "50/140 until +20h",
        "0/0",
    ),
    "an expired month is over, also where it is not forfeited yet": (
        """
        grant m 100 monthly until=+1h
        use 30
        wait +2h
        """,
        "0/0",
        "0/0",
    ),
    "a new month begins anew": (
        """
        grant m 100 monthly until=+1h
        use 30
        wait +2h
        grant n 100 monthly until=+30h
        use 7
        """,
        "7/100 until +30h",
        "0/0",
    ),
    "a refund before use leaves nothing, and no reset": (
        """
        grant m 100 monthly until=+1h
        revoke m 100
        """,
        "0/0",
        "0/0",
    ),
    "a refund in part": (
        """
        grant g 100
        use 10
        revoke g 50
        """,
        "0/0",
        "10/50",
    ),
    "what was spent of a refund is owed, and the next grant pays it": (
        """
        grant g 100
        use 70
        revoke g 100
        wait +1h
        grant h 100
        """,
        "0/0",
        "0/30",
    ),
    "adjustments": (
        """
        grant g 100
        adjust -30
        adjust 5
        use 80
        """,
        "0/0",
        "75/75",
    ),
    "used up is shown as used": (
        """
        grant g 100
        use 130
        wait +400d
        """,
        "0/0",
        "100/100",
    ),
    "who buys after everything is used starts with what was bought": (
        """
        grant g 100
        use 130
        wait +1h
        grant h 60
        use 5
        """,
        "0/0",
        "5/60",
    ),
    "who buys before counts both, also when the first is used up": (
        """
        grant g 100
        use 90
        wait +1h
        grant h 60
        use 30
        """,
        "0/0",
        "120/160",
    ),
    "until a third is bought": (
        """
        grant g 100
        use 90
        wait +1h
        grant h 60
        use 30
        wait +1h
        grant i 50
        use 1
        """,
        "0/0",
        "21/110",
    ),
    "a purchase that was refunded whole brings nothing to an end": (
        """
        grant g 100
        use 130
        wait +1h
        grant h 60
        revoke h 60
        """,
        "0/0",
        "100/100",
    ),
    "a one-time grant may end": (
        """
        grant g 100 until=+1h
        use 10
        wait +1h
        """,
        "0/0",
        "0/0",
    ),
}


@pytest.mark.parametrize(("scenario", "monthly", "one_time"), CASES.values(), ids=CASES.keys())
def test_figures(
    client: Any, query: Any, put: Put, scenario: str, monthly: str, one_time: str
) -> None:
    playing = Playing()
    playing.play(scenario)
    playing.put_into(put)
    figures = pool_figures(query, ORG, "group", "a", playing.worker.now)
    assert (shown(figures.monthly), shown(figures.one_time)) == (monthly, one_time)
    pool = playing.worker.pool("group", "a")
    assert (figures.debt_micro, figures.held_micro) == (pool.debt_micro, pool.balance_micro)
    live = [
        grant.remaining_micro
        for grant in pool.grants
        if grant.effective_at <= playing.worker.now
        and (grant.expires_at is None or playing.worker.now < grant.expires_at)
    ]
    assert figures.balance_micro == sum(live) - pool.debt_micro


def test_what_begins_later_is_not_shown_yet(client: Any, query: Any, put: Put) -> None:
    playing = Playing()
    playing.play("grant m 100 monthly until=+30h")
    playing.put_into(put)
    before = pool_figures(query, ORG, "group", "a", T0 - timedelta(microseconds=1))
    assert shown(before.monthly) == "0/0"
    assert (before.balance_micro, before.upcoming_micro, before.expired_micro) == (0, 100, 0)
    after = pool_figures(query, ORG, "group", "a", T0 + 30 * HOUR)
    assert (after.balance_micro, after.upcoming_micro, after.expired_micro) == (0, 0, 100)
    assert before.held_micro == after.held_micro == 100
    (grant,) = list_grants(query, ORG)
    states = [grant.state(T0 + time) for time in (-HOUR, 0 * HOUR, 30 * HOUR)]
    assert states == ["upcoming", "live", "expired"]


def test_a_grant_counts_when_both_its_fact_and_its_entry_are_here(
    client: Any, query: Any, put: Put
) -> None:
    playing = Playing()
    playing.play("grant g 100\nuse 30")
    put("usage_rated_rows", playing.worker.rated)
    put("facts_applied_rows", playing.facts)
    early = pool_figures(query, ORG, "group", "a", T0)
    assert early == PoolFigures("group", "a")
    assert list_pools(query, ORG, T0) == []
    assert list_grants(query, ORG) == []
    put("ledger_rows", playing.worker.postings)
    assert shown(pool_figures(query, ORG, "group", "a", T0).one_time) == "30/100"


def test_pools_and_grants_come_in_pages(client: Any, query: Any, put: Put) -> None:
    playing = Playing()
    playing.play("""
        grant g1 10 a
        grant g2 20 b
        grant g3 30 web_3
        wait +1h
        grant g4 40 a
        grant g5 50 a
        use 15
    """)
    playing.put_into(put)
    now = playing.worker.now

    def names(figures: list[PoolFigures]) -> list[tuple[str, str]]:
        return [(each.pool_kind, each.pool_id) for each in figures]

    everything = list_pools(query, ORG, now)
    assert names(everything) == [("group", "a"), ("group", "b"), ("website", "web_3")]
    assert list_pools(query, ORG, now, limit=2) == everything[:2]
    assert list_pools(query, ORG, now, after=("group", "b"), limit=2) == everything[2:]
    assert list_pools(query, ORG, now, pool_kind="website") == everything[2:]
    assert list_pools(query, "org_8", now) == []
    whole = organization_figures(query, ORG, now)
    assert shown(whole.one_time) == "15/150"
    assert organization_figures(query, "org_8", now) == PoolFigures("organization", "")

    def grants(**wanted: Any) -> str:
        return " ".join(
            f"{each.grant_id}:{each.remaining_micro}:{each.state(now)}"
            for each in list_grants(query, ORG, **wanted)
        )

    of_a: dict[str, Any] = {"pool_kind": "group", "pool_id": "a"}
    assert grants(**of_a) == "g5:50:live g4:35:live g1:0:used"
    assert grants(**of_a, limit=1) == "g5:50:live"
    an_hour_later = int(instant("+1h").timestamp()) * 10**6
    assert grants(**of_a, before=(an_hour_later, "g5")) == "g4:35:live g1:0:used"
