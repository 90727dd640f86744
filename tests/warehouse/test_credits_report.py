"""`metering report credits`: pools, by grant, and what is wrong with what is asked."""

import csv
import io
import json
from datetime import datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import report as report_command
from cli import report_credits
from schemas.settings import Settings
from tests.decisions.worker import HOUR, ORG, T0
from tests.warehouse.conftest import Put
from tests.warehouse.playing import Playing
from warehouse import dimensions

NOW = T0 + HOUR


class Clock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return NOW


@pytest.fixture
def run(settings: Settings, client: Any, put: Put, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(report_credits, "load_settings", lambda: settings)
    monkeypatch.setattr(report_credits, "datetime", Clock)
    playing = Playing()
    playing.play("""
        grant m 3000000 a monthly until=+30h
        +30h grant n 4000000 a monthly until=+60h
        grant g 2000000 a
        use 1500000
        revoke g 500000
        grant w 700000 web_3
        at web_3 use 700000
        revoke w 200000
    """)
    playing.put_into(put)
    names: list[Any] = [
        dimensions.OrganizationName(ORG, 1, "Seven", T0),
        dimensions.BillingGroupName(ORG, "a", 1, "=Alpha", False, T0),
        dimensions.WebsiteName(ORG, "web_9", 1, "new.example", False, T0),
    ]
    dimensions.write(client, [names[0]])
    dimensions.write(client, [names[1]])
    dimensions.write(client, [names[2]])
    return lambda *words: CliRunner().invoke(report_command.app, ["credits", "-o", ORG, *words])


TABLE = """\
Credits of Seven, 2026-11-01 13:00:00 UTC
Debt is what was spent of credits that were taken back; the next credits repay it.
The balance is what can be spent now, minus the debt; upcoming credits begin later.

Pool              Monthly left  Monthly total  Resets (UTC)      One-time left  \
One-time total  Debt  Balance  Upcoming
--------------------------------------------------------------------------------\
---------------------------------------
group =Alpha (a)          1.50           3.00  2026-11-02 18:00           1.50  \
          1.50  0.00     3.00      4.00
website web_3             0.00           0.00                             0.00  \
          0.70  0.20    -0.20      0.00
"""


def test_the_table_of_pools(run: Any) -> None:
    assert run().stdout == TABLE


def test_the_table_by_grant(run: Any) -> None:
    table = run("--grants", "--group", "a").stdout
    assert "website" not in table
    header, _, *grants = table.splitlines()[9:]
    assert header.split()[:4] == ["Grant", "Kind", "State", "From"]
    assert [grant.split()[:3] for grant in grants] == [
        ["n", "monthly", "upcoming"],
        ["m", "monthly", "live"],
        ["g", "one_time", "live"],
    ]


def test_as_json(run: Any) -> None:
    document = json.loads(run("--format", "json", "--grants").stdout)
    assert (document["organization_name"], document["at"]) == (
        "Seven",
        "2026-11-01T13:00:00.000+00:00",
    )
    group, website = document["pools"]
    assert group["monthly_resets_at"] == "2026-11-02T18:00:00+00:00"
    assert {each["grant_id"]: each["state"] for each in group["grants"]} == {
        "n": "upcoming",
        "m": "live",
        "g": "live",
    }
    assert website == {
        "pool_kind": "website",
        "pool_id": "web_3",
        "name": "",
        "is_deleted": False,
        "monthly_total_credits": "0.00",
        "monthly_used_credits": "0.00",
        "monthly_remaining_credits": "0.00",
        "monthly_resets_at": None,
        "one_time_total_credits": "0.70",
        "one_time_used_credits": "0.70",
        "one_time_remaining_credits": "0.00",
        "debt_credits": "0.20",
        "balance_credits": "-0.20",
        "upcoming_credits": "0.00",
        "expired_credits": "0.00",
        "grants": [
            {
                "grant_id": "w",
                "kind": "one_time",
                "source": "admin:x",
                "state": "used",
                "effective_at": "2026-11-01T12:00:00+00:00",
                "expires_at": None,
                "issued_credits": "0.70",
                "repaid_credits": "0.00",
                "revoked_credits": "0.20",
                "owed_credits": "0.20",
                "forfeited_credits": "0.00",
                "adjusted_credits": "0.00",
                "used_credits": "0.70",
                "remaining_credits": "0.00",
            }
        ],
    }


def test_as_csv(run: Any) -> None:
    pools = list(csv.DictReader(io.StringIO(run("--format", "csv").stdout)))
    assert [(row["name"], row["balance_credits"]) for row in pools] == [
        ("'=Alpha", "3.00"),
        ("", "-0.20"),
    ]
    grants = list(csv.DictReader(io.StringIO(run("--format", "csv", "--grants").stdout)))
    assert [(row["pool_id"], row["grant_id"], row["remaining_credits"]) for row in grants] == [
        ("a", "n", "4.00"),
        ("a", "m", "1.50"),
        ("a", "g", "1.50"),
        ("web_3", "w", "0.00"),
    ]


def test_a_pool_without_credits_and_one_that_is_unknown(run: Any) -> None:
    shown = json.loads(run("--website", "web_9", "--format", "json").stdout)["pools"]
    assert [(pool["name"], pool["balance_credits"]) for pool in shown] == [("new.example", "0.00")]
    assert "unknown" in str(run("--website", "web_8").exception)
    assert "not both" in str(run("--website", "web_3", "--group", "a").exception)
    unknown = CliRunner().invoke(report_command.app, ["credits", "-o", "org_x"])
    assert "'org_x' is unknown" in str(unknown.exception)


def test_an_organization_without_credits(run: Any, client: Any) -> None:
    dimensions.write(client, [dimensions.OrganizationName("org_8", 1, "Eight", T0)])
    shown = CliRunner().invoke(report_command.app, ["credits", "-o", "org_8"])
    assert "No credits were ever given." in shown.stdout
    header = CliRunner().invoke(report_command.app, ["credits", "-o", "org_8", "--format", "csv"])
    assert header.stdout.startswith("pool_kind,pool_id")
