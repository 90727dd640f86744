"""Overage by organization and period adds up to `report spend`, and stays what it was."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli import report as report_command
from schemas.records import Granted
from schemas.settings import Settings
from tests.decisions.worker import HOUR, ORG, T0
from tests.sinks.feed import fact_applied, rated_event
from tests.warehouse.conftest import Put
from tests.warehouse.playing import Playing
from warehouse import dimensions
from warehouse import overage as module
from warehouse.amounts import micro_text, pico_text
from warehouse.overage import OverageRow, all_periods, overage
from warehouse.reports import spend_report

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def query(client: Any) -> Any:
    return lambda statement, parameters: client.query(statement, dict(parameters)).result_rows


def created(organization_id: str, anchor_day: int = 1, time_zone: str = "UTC") -> Any:
    fact = {"billing_anchor_day": anchor_day, "time_zone": time_zone}
    return fact_applied(
        1,
        "organization_created",
        organization_id=organization_id,
        effective_at=datetime(2026, 1, 1, tzinfo=UTC),
        fact=json.dumps(fact),
    )


def event(number: int, organization_id: str, overage_micro: int, **changes: Any) -> Any:
    fields = {
        "cost_micro": overage_micro + 7,
        "group_debit_micro": 7,
        "overage_micro": overage_micro,
        "event_time": NOVEMBER + timedelta(hours=number),
    }
    return rated_event(number, organization_id=organization_id, **fields | changes)


def by_organization(rows: list[OverageRow]) -> dict[tuple[str, str], tuple[int, int, int]]:
    return {
        (row.organization_id, row.currency): (row.events, row.overage_micro, row.money_pico)
        for row in rows
    }


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["org_a", "org_b", "org_c"]),
        st.integers(-40 * 24, 40 * 24),
        st.integers(0, 2**60),
        st.sampled_from([0, 0, 9]),
        st.sampled_from(["USD", "EUR"]),
        st.sampled_from([10_000, 1, 2**40]),
    ),
    max_size=20,
)


@given(drawn=ROWS, month=st.sampled_from(["2026-10", "2026-11", "2026-12"]))
@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_overage_is_that_of_report_spend_in_each_organizations_own_month(
    client: Any, put: Put, query: Any, drawn: list[Any], month: str
) -> None:
    for table in ("usage_rated_rows", "facts_applied_rows"):
        client.command(f"TRUNCATE TABLE {table}")
    put(
        "facts_applied_rows",
        [created("org_a"), created("org_b", 15, "Asia/Tokyo"), created("org_c", 31)],
    )
    put(
        "usage_rated_rows",
        [
            event(number, name, amount, revision=revision, currency=currency,
                  credit_price_micro=price, event_time=NOVEMBER + hours * HOUR)
            for number, (name, hours, amount, revision, currency, price) in enumerate(drawn)
        ],
    )  # fmt: skip
    periods = all_periods(query, month)
    rows = overage(query, periods)
    for name in ("org_a", "org_b", "org_c"):
        spent = spend_report(client, name, month, "meter")
        mine = [row for row in rows if row.organization_id == name]
        assert sum(row.overage_micro for row in mine) == spent.total.overage_micro
        assert all(row.period == spent.period == periods[name] for row in mine)
    money: dict[tuple[str, str], int] = {}
    for name, hours, amount, _, currency, price in drawn:
        at = NOVEMBER + hours * HOUR
        if amount and periods[name].start <= at < periods[name].end:
            money[name, currency] = money.get((name, currency), 0) + amount * price
    assert {key: pico for key, (_, _, pico) in by_organization(rows).items()} == money


def test_every_organization_is_asked_for_whatever_their_number(
    client: Any, put: Put, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ORGANIZATIONS_AT_ONCE", 2)
    names = [f"org_{name}" for name in ("9", "Z", "a", "ä", "\U0001f600")]
    put("facts_applied_rows", [created(name, 1 + number % 3) for number, name in enumerate(names)])
    put("usage_rated_rows", [event(100, name, 5) for name in names])
    rows = overage(query, all_periods(query, "2026-11"))
    assert [(row.organization_id, row.overage_micro) for row in rows] == [
        (name, 5) for name in names
    ]


def test_credits_that_come_later_do_not_touch_past_overage(
    client: Any, put: Put, query: Any
) -> None:
    """Also where they take effect before the usage."""
    playing = Playing()
    put("facts_applied_rows", [created(ORG)])
    playing.play("use 100")

    def of_november() -> list[OverageRow]:
        playing.put_into(put)
        return overage(query, all_periods(query, "2026-11"))

    before = of_november()
    assert [(row.events, row.overage_micro) for row in before] == [(1, 100)]
    early = Granted("g", "group", "a", "one_time", 1_000, "admin:x")
    playing.worker.now += HOUR
    outcome = playing.worker.publish(early, T0 - 10 * HOUR)
    assert outcome.applied is not None
    playing.facts.append(outcome.applied)
    playing.play("grant h 50\nadjust 5")
    assert of_november() == before
    playing.play("use 10")
    assert of_november() == before


def test_a_correction_changes_the_overage_of_its_time(client: Any, put: Put, query: Any) -> None:
    put("facts_applied_rows", [created("org_a")])
    put("usage_rated_rows", [event(1, "org_a", 100), event(2, "org_a", 5)])
    put("usage_rated_rows", [event(1, "org_a", -100, revision=4), event(3, "org_b", 1)])
    rows = overage(query, all_periods(query, "2026-11"))
    assert by_organization(rows) == {("org_a", "USD"): (2, 5, 50_000)}


@pytest.fixture
def two_organizations(client: Any, put: Put) -> None:
    put("facts_applied_rows", [created("org_a"), created("org_b", 15), created("org_c")])
    put(
        "usage_rated_rows",
        [
            event(1, "org_a", 1_500_000),
            event(2, "org_a", 10, currency="EUR"),
            event(400, "org_b", 3),
        ],
    )
    dimensions.write(client, [dimensions.OrganizationName("org_a", 1, "=Acme", NOVEMBER)])


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("cli.report_overage.load_settings", lambda: settings)
    return lambda *words: CliRunner().invoke(report_command.app, ["overage", *words])


def test_the_command_prints_all_formats(two_organizations: None, run: Any) -> None:
    table = run("--period", "2026-11").stdout
    assert "=Acme (org_a)  2026-11-01 00:00  2026-12-01 00:00 UTC" in table
    document = json.loads(run("--period", "2026-11", "--format", "json").stdout)
    assert [(row["organization_id"], row["money"]) for row in document["rows"]] == [
        ("org_a", pico_text(10 * 10_000)),
        ("org_a", "0.015"),
        ("org_b", "0.00000003"),
    ]
    assert document["total"] == {
        "overage_micro": 1_500_013,
        "overage_credits": micro_text(1_500_013),
        "money": {"EUR": "0.0000001", "USD": "0.01500003"},
    }
    rows = list(csv.DictReader(io.StringIO(run("--period", "2026-11", "--format", "csv").stdout)))
    assert rows[1] == {
        "organization_id": "org_a",
        "organization_name": "'=Acme",
        "start": "2026-11-01T00:00:00+00:00",
        "end": "2026-12-01T00:00:00+00:00",
        "time_zone": "UTC",
        "currency": "USD",
        "events": "1",
        "overage_micro": "1500000",
        "overage_credits": "1.50",
        "money": "0.015",
    }


def test_the_command_for_one_organization(two_organizations: None, run: Any) -> None:
    answer = run("--period", "2026-11", "--organization", "org_b", "--format", "json")
    assert [row["overage_micro"] for row in json.loads(answer.stdout)["rows"]] == [3]
    assert "No overage" in run("--period", "2026-11", "--organization", "org_c").stdout
    unknown = run("--period", "2026-11", "--organization", "org_x")
    assert "unknown" in str(unknown.exception)
    assert "no period" in str(run("--period", "November").exception)


def test_a_month_without_a_cycle_belongs_to_another(client: Any, put: Put, query: Any) -> None:
    """Settings that begin on the 2nd with an anchor day of 1 make a cycle of two months."""
    put("facts_applied_rows", [created("org_a")])
    changed = fact_applied(
        2,
        "organization_settings",
        organization_id="org_a",
        effective_at=datetime(2026, 10, 31, tzinfo=UTC),
        fact=json.dumps({"billing_anchor_day": 31, "time_zone": "UTC"}),
    )
    again = fact_applied(
        3,
        "organization_settings",
        organization_id="org_a",
        effective_at=datetime(2026, 11, 2, tzinfo=UTC),
        fact=json.dumps({"billing_anchor_day": 1, "time_zone": "UTC"}),
    )
    put("facts_applied_rows", [changed, again])
    put("usage_rated_rows", [event(hours, "org_a", 1) for hours in range(-720, 1440, 24)])
    sums = {
        month: sum(row.overage_micro for row in overage(query, all_periods(query, month)))
        for month in ("2026-10", "2026-11", "2026-12")
    }
    assert sum(sums.values()) == 90
    assert "org_a" not in all_periods(query, "2026-11")
