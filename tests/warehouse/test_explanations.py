"""An explanation names the facts, the payers and the place; an unknown event says so."""

import json
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import explain as explain_command
from cli import report as report_command
from cli.errors import Failure
from schemas.records import Allocation
from schemas.settings import Settings
from tests.sinks.feed import NOON, fact_applied, rated_event
from tests.warehouse.conftest import Put


@pytest.fixture
def event(put: Put) -> None:
    put(
        "usage_rated_rows",
        [
            rated_event(
                10, website_id="web_1", funding_group_id="group_a", subject="ann@example.com",
                resolved_by="alias", website_debit_micro=4, group_debit_micro=5, overage_micro=1,
                allocations=[Allocation("website", "w1", 4), Allocation("group", "g1", 5)],
                group_balance_micro=-7,
            ),
            rated_event(10, revision=12, cost_micro=-1, overage_micro=-1, quantity_micro=0),
        ],
    )  # fmt: skip
    put(
        "facts_applied_rows",
        [
            fact_applied(2, "member_assigned", member_id="user_1", group_id="group_a", how="scim"),
            fact_applied(3, "price_set"),
            fact_applied(9, "group_deleted", group_id="group_a"),
            grant_applied(1, "w1", {"kind": "one_time", "source": "admin:ann"}),
            grant_applied(
                2,
                "g1",
                {
                    "kind": "monthly",
                    "source": "stripe:in_1",
                    "expires_at": "2026-12-01T00:00:00Z",
                },
            ),
            grant_applied(3, "g2", {"kind": "one_time", "source": "of another event"}),
        ],
    )


def grant_applied(version: int, grant_id: str, fact: dict[str, str]) -> Any:
    return fact_applied(
        version, "granted", grant_id=grant_id, fact=json.dumps(fact), topic="credits"
    )


def run(monkeypatch: pytest.MonkeyPatch, module: Any, settings: Settings, *arguments: str) -> Any:
    monkeypatch.setattr(module, "load_settings", lambda: settings)
    return CliRunner().invoke(module.app, list(arguments))


def test_the_prose_tells_the_whole_story(
    event: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(monkeypatch, explain_command, settings, "evt_10", "--organization", "org_1")

    assert result.exit_code == 0, result.output
    for piece in (
        "10.00 units of ai.tokens for website web_1",
        "found by an alias (ann@example.com)",
        "by membership fact 2 (member assigned by the identity provider (SCIM)",
        "deleted since, so reports show it under Unassigned",
        "so that is 0.0000001 USD",
        "Asked to pay, in this order: website web_1, then group group_a.",
        "website pool, grant w1          0.000004",
        "overage (no credits were left)  0.000001",
        "Grant g1: monthly credits from stripe:in_1, valid from 2026-11-10 12:00:00 UTC until "
        "2026-12-01 00:00:00 UTC (credits fact 2).",
        "Grant w1: one-time credits from admin:ann, valid from 2026-11-10 12:00:00 UTC (credits "
        "fact 1).",
        "Balances after it, with what begins later: website 0.00, group -0.000007 credits.",
        "Corrected by fact 12",
        "In Kafka: usage, partition 0, offset 10",
    ):
        assert piece in result.output


def test_json_has_the_row_the_facts_and_the_money(
    event: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(
        monkeypatch, explain_command, settings,
        "evt_10", "--organization", "org_1", "--format", "json",
    )  # fmt: skip
    event_json = json.loads(result.output)["events"][0]

    assert event_json["event"]["cost_micro"] == 10
    assert event_json["event"]["allocations"][1] == {
        "pool": "group", "grant_id": "g1", "amount_micro": 5,
    }  # fmt: skip
    assert [fact["version"] for fact in event_json["facts"]] == [2, 3]
    assert [grant["grant_id"] for grant in event_json["grants"]] == ["g1", "w1"]
    assert event_json["reported_group"] == {"id": "group_unassigned", "name": "Unassigned"}


def test_a_dead_letter_is_explained_too(
    client: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.command(
        "INSERT INTO dead_letter_rows (cluster_id, topic, offset, organization_id, event_id, "
        "reason, detail) VALUES ('c', 'dead-letters', 3, 'org_1', 'evt_1', 'no_price', 'None.')"
    )
    result = run(monkeypatch, explain_command, settings, "evt_1", "--organization", "org_1")

    assert "Event evt_1 was refused: no_price." in result.output


@pytest.mark.usefixtures("client")
def test_an_unknown_event_fails_with_one_sentence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(monkeypatch, explain_command, settings, "evt_1", "--organization", "org_1")

    assert isinstance(result.exception, Failure)
    assert "neither rated nor a dead letter" in str(result.exception)


def test_the_report_command(
    event: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("spend", "--organization", "org_1", "--period", "2026-11-10..2026-11-10")
    table = run(monkeypatch, report_command, settings, *arguments, "--by", "meter")
    wrong = run(monkeypatch, report_command, settings, *arguments[:-1], "yesterday")
    nobody = run(
        monkeypatch, report_command, settings, "spend", "--organization", "x", "--period", "2026-11"
    )

    assert table.exit_code == 0, table.output
    assert [line.split() for line in table.output.splitlines()[-3:]][-1] == [
        "Total", "1", "10.00", "0.000009", "0.000004", "0.000005", "0.00", "0.00000009",
    ]  # fmt: skip
    assert isinstance(wrong.exception, Failure)
    assert isinstance(nobody.exception, Failure)
    assert (NOON + timedelta(days=1)).date().isoformat() in table.output
