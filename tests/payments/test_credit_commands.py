"""`metering packages` and `credits`: what is sold, bought and shown from the command line."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import credits, packages
from cli.errors import Failure
from tests.payments.storefront import Storefront, storefront

GROUP = ("-o", "org_a", "--group", "Group A")


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storefront]:
    """A shop that is open, and an environment in which commands find it; ClickHouse is away."""
    monkeypatch.setenv("METERING_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("METERING_CLICKHOUSE_URL", "http://127.0.0.1:1")
    with storefront(tmp_path) as opened:
        monkeypatch.setenv("METERING_STRIPE_API_KEY", opened.stripe.api_key)
        monkeypatch.setenv("METERING_STRIPE_WEBHOOK_SECRET", opened.stripe.webhook_secret)
        monkeypatch.setenv("METERING_STRIPE_API_BASE", opened.stripe.url)
        yield opened


def run(app: Any, *arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_packages_are_sold_changed_and_retired(front: Storefront) -> None:
    terms = ("--credits", "0.5", "--price", "1500", "--currency", "JPY", "--sold", "both")
    assert run(packages.app, "create", "Half", "--id", "half", *terms).strip() == "half"
    run(packages.app, "change", "half", "--price", "1600", "--name", "A half")
    listed = run(packages.app, "list")
    assert [line.split()[0] for line in listed.splitlines()[2:]] == ["half", "pkg_1000"]
    assert "A half" in listed
    assert "1600 JPY" in listed
    run(packages.app, "retire", "half")
    assert "half" not in run(packages.app, "list")
    assert "retired" in run(packages.app, "list", "--all")
    run(packages.app, "restore", "half")
    assert "half" in run(packages.app, "list")
    for wrong, message in (
        (("--price", "1.5"), "more than 0 decimals"),
        (("--price", "-1"), "is no amount"),
        (("--credits", "1.0000001"), "more than 6 decimals"),
        (("--currency", "EURO"), "no currency"),
    ):
        with pytest.raises(Failure, match=message):
            run(packages.app, "change", "half", *wrong)
    with pytest.raises(Failure, match="There is no package 'nowhere'"):
        run(packages.app, "change", "nowhere", "--price", "1")


def test_credits_are_bought_shown_and_in_the_history(front: Storefront) -> None:
    assert run(credits.app, "history", *GROUP) == "No paid invoices.\n"
    url = run(credits.app, "buy", *GROUP, "pkg_1000", "-n", "3").strip()
    assert url.startswith(front.stripe.url)
    waiting = json.loads(run(credits.app, "show", *GROUP, "--format", "json"))["waiting"]
    assert [row["checkout_url"] for row in waiting] == [url]
    table = run(credits.app, "show", *GROUP)
    assert "Group A (group group_a), paid by stripe" in table
    assert url in table
    assert "The figures are missing" in table
    front.pay(waiting[0]["id"])
    front.subscribe(2)
    shown = json.loads(run(credits.app, "show", *GROUP, "--format", "json"))
    assert (shown["waiting"], shown["one_time"]["packages"]) == ([], 3)
    assert [row["quantity"] for row in shown["subscriptions"]] == [2]
    rows = run(credits.app, "show", *GROUP, "--format", "csv").splitlines()
    assert [row.split(",")[0] for row in rows] == ["kind", "monthly", "one_time"]
    (charge,) = [c for c in front.stripe.control.all("charge") if c["amount"] == 3000]
    front.stripe.client().v1.refunds.create({"charge": charge["id"], "amount": 500})
    front.deliver()
    history = run(credits.app, "history", *GROUP)
    assert "3 x 1,000 credits, one-time" in history
    (refunded,) = [line for line in history.splitlines() if "one-time" in line]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d  ", refunded)
    assert " 30.00 USD  5.00 USD " in refunded
    assert "2 x 1,000 credits, monthly" in history
    month = f"{front.clock():%Y-%m}"
    exported = run(credits.app, "history", *GROUP, "--month", month, "--format", "csv")
    amounts = [row["amount_minor"] for row in csv.DictReader(io.StringIO(exported))]
    assert sorted(amounts) == ["2000", "3000"]
    assert run(credits.app, "history", *GROUP, "--month", "2020-01") == "No paid invoices.\n"


def test_billing_is_enabled_from_the_command_line(front: Storefront) -> None:
    front.admin.post("/v1/organizations/org_a/websites", json={"id": "web", "name": "W"})
    website = ("-o", "org_a", "--website", "web")
    with pytest.raises(Failure, match="Billing is not enabled for this website"):
        run(credits.app, "buy", *website, "pkg_1000")
    assert "billing not enabled" in run(credits.app, "show", *website)
    for _ in range(2):
        assert run(credits.app, "enable", *website) == "stripe\n"
    assert run(credits.app, "buy", *website, "pkg_1000").startswith("http")


def test_a_pool_is_named_once(front: Storefront) -> None:
    for pool in ((), ("--group", "a", "--website", "b")):
        with pytest.raises(Failure, match="Name one group"):
            run(credits.app, "show", "-o", "org_a", *pool)
    with pytest.raises(Failure, match="There is no group 'nowhere'"):
        run(credits.app, "history", "-o", "org_a", "--group", "nowhere")
    with pytest.raises(Failure, match="Unassigned"):
        run(credits.app, "show", "-o", "org_a", "--group", "unassigned")
