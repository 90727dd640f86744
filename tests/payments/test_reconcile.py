"""Webhooks are hints: with any of them lost, reconciliation ends in the same state."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete

from api.storage.ledgers import OutboxFact
from api.storage.purchases import (
    BoughtGrant,
    Invoice,
    ProviderCursor,
    Purchase,
    Subscription,
    Unmatched,
)
from tests.cli.conftest import RunCommand
from tests.payments.storefront import DAY_S, Storefront, month, storefront


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Storefront]:
    with storefront(tmp_path) as opened:
        yield opened


def lose_everything(front: Storefront) -> None:
    front.stripe.control.webhook_rules({"action": "drop"}, signed_at="moved")


def test_a_paid_session_whose_webhooks_were_lost_is_granted(front: Storefront) -> None:
    bought = front.buy()
    lose_everything(front)
    front.pay(bought["id"])
    assert front.credits() == 0
    report = front.reconcile()
    assert front.credits() == 2
    assert any("granted" in difference for difference in report.differences)
    assert (report.unmatched, report.failures) == ([], [])
    assert front.reconcile().differences == []


def test_renewals_refunds_and_disputes_are_found_without_webhooks(front: Storefront) -> None:
    renewed, refunded, disputed = front.subscribe(), front.buy(), front.buy()
    for each in (refunded, disputed):
        front.pay(each["id"])
    lose_everything(front)
    charges = front.stripe.control.all("charge")
    front.stripe.client().v1.refunds.create({"charge": charges[1]["id"]})
    front.stripe.control.dispute(charges[2]["id"])
    front.advance(month(front, renewed) + 2 * 3600)
    assert front.credits() == 5
    front.reconcile()
    assert front.credits() == 2
    assert front.unmatched() == []


def test_a_rehearsal_tells_what_would_be_done_and_does_nothing(front: Storefront) -> None:
    bought = front.buy()
    lose_everything(front)
    front.pay(bought["id"])
    facts = front.facts()
    rehearsed = front.rehearse()
    assert any("granted" in difference for difference in rehearsed.differences)
    assert (front.credits(), front.facts()) == (0, facts)
    with front.store.read() as session:
        assert session.get(ProviderCursor, "stripe") is None
    assert front.reconcile().differences == rehearsed.differences


def test_what_names_a_purchase_that_is_not_here_is_put_aside(front: Storefront) -> None:
    client = front.stripe.client()
    session = client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": 1_000,
                        "product_data": {"name": "?"},
                    },
                }
            ],
            "success_url": "https://shop.example/",
            "metadata": {"metering_organization": "org_a", "metering_purchase": "buy_nobody"},
        }
    )
    front.stripe.control.pay(session.id)
    front.deliver()
    assert front.unmatched() == [("checkout.session", "unknown_here")]
    report = front.reconcile()
    assert len(report.unmatched) == 1
    assert "buy_nobody" in report.unmatched[0]
    assert front.credits() == 0


def test_one_that_stripe_does_not_tell_of_hides_no_other(front: Storefront) -> None:
    with front.store.write() as session:
        for object_id in ("../../customers/x", "cs_gone"):
            unknown = Unmatched(
                provider="stripe",
                object_kind="checkout.session",
                object_id=object_id,
                code="unknown_here",
                message="It is for purchase 'buy_nobody', which is not here.",
                since=front.clock(),
            )
            session.add(unknown)
    bought = front.buy()
    lose_everything(front)
    front.pay(bought["id"])
    report = front.reconcile()
    assert [failure.partition(": ")[0] for failure in report.failures] == [
        "checkout.session ../../customers/x"
    ]
    assert front.credits() == 2


def test_a_purchase_that_is_paid_by_a_second_session_stays_put_aside(front: Storefront) -> None:
    """All that was sold is in its metadata, but it is no purchase that was lost."""
    bought = front.buy()
    front.pay(bought["id"])
    first = front.stripe.control.object(front.session_id(bought["id"]))
    again = front.stripe.client().v1.checkout.sessions.create(
        {
            "mode": "payment",
            "customer": first["customer"],
            "line_items": [
                {
                    "quantity": 2,
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": 1_000,
                        "product_data": {"name": "1,000 credits"},
                    },
                }
            ],
            "success_url": "https://shop.example/",
            "metadata": first["metadata"],
        }
    )
    front.stripe.control.pay(again.id)
    front.deliver()
    assert front.unmatched() == [("checkout.session", "unknown_here")]
    report = front.reconcile()
    assert report.differences == []
    assert front.unmatched() == [("charge", "unknown_here"), ("checkout.session", "unknown_here")]
    assert front.credits() == 2


def test_other_products_of_the_same_account_are_nobodys_business(front: Storefront) -> None:
    client = front.stripe.client()
    customer = client.v1.customers.create({"name": "of another product"})
    session = client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "customer": customer.id,
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": 1_000,
                        "product_data": {"name": "T-shirt"},
                    },
                }
            ],
            "success_url": "https://shop.example/",
        }
    )
    front.stripe.control.pay(session.id)
    front.deliver()
    report = front.reconcile()
    assert (report.differences, report.unmatched, front.unmatched()) == ([], [], [])


def test_after_an_older_backup_purchases_are_made_again(front: Storefront) -> None:
    once, monthly = front.buy(quantity=3), front.subscribe(quantity=2)
    front.pay(once["id"])
    before = front.grants()
    with front.store.write() as session:
        for table in (BoughtGrant, Invoice, Subscription, Purchase, Unmatched, OutboxFact):
            session.execute(delete(table))
    report = front.reconcile()
    assert report.failures == []
    assert sum("made again" in difference for difference in report.differences) == 2
    assert front.grants() == before
    assert front.purchase(once["id"]).state == front.purchase(monthly).state == "paid"
    assert front.unmatched() == []


def test_further_back_than_events_are_kept_every_purchase_is_looked_at(front: Storefront) -> None:
    bought = front.buy()
    front.pay(bought["id"])
    front.advance(60 * DAY_S)
    assert front.reconcile(front.clock() - timedelta(days=20)).looked_at == 0
    assert front.reconcile(front.clock() - timedelta(days=40)).looked_at == 1


def test_it_runs_once_a_night(front: Storefront) -> None:
    (name,) = (chore.name for chore in front.chores if chore.name.startswith("reconciliation"))
    assert front.chore(name) is None
    front.advance(DAY_S)
    assert front.chore(name).looked_at == 0
    assert front.chore(name) is None


def test_the_cursor_stays_where_a_look_failed(front: Storefront) -> None:
    front.buy()
    fault = {"kind": "error", "method": "GET", "path": "/v1/checkout/sessions/", "times": 9}
    front.stripe.control.faults(fault)
    assert len(front.reconcile().failures) == 1
    with front.store.read() as session:
        assert session.get(ProviderCursor, "stripe") is None
    front.stripe.control.faults()
    assert front.reconcile().failures == []
    with front.store.read() as session:
        assert session.get(ProviderCursor, "stripe") is not None


def test_with_any_subset_of_webhooks_lost_the_end_is_the_same(tmp_path: Path) -> None:
    """The same month of trade, with webhooks dropped, doubled and out of order."""
    ends = []
    for probability in (0.0, 0.5, 1.0):
        with storefront(tmp_path / str(probability)) as front:
            front.stripe.control.webhook_rules(
                {"action": "drop", "probability": probability},
                {"action": "duplicate", "probability": probability},
                reorder=probability > 0,
                seed=7,
                signed_at="moved",
            )
            ends.append(_a_month_of_trade(front))
    assert ends == [ends[0]] * 3


def _a_month_of_trade(front: Storefront) -> list[tuple[int, bool]]:
    kept, refunded, disputed = front.buy(quantity=3), front.buy(), front.buy()
    monthly = front.subscribe(quantity=5)
    for each in (kept, refunded, disputed):
        front.pay(each["id"])
    charges = {charge["amount"]: charge["id"] for charge in front.stripe.control.all("charge")}
    front.stripe.client().v1.refunds.create({"charge": charges[2_000], "amount": 1_000})
    front.stripe.control.dispute(charges[3_000])
    front.reconcile()
    front.advance(month(front, monthly) + 2 * 3600)
    front.reconcile()
    return sorted(value for value in front.grants().values() if value[0])


def test_the_command_mends_and_tells_what_is_left(
    front: Storefront, tmp_path: Path, run_command: RunCommand
) -> None:
    bought = front.buy()
    lose_everything(front)
    front.pay(bought["id"])
    variables = {
        "METERING_DATA_DIR": str(tmp_path),
        "METERING_STRIPE_API_KEY": front.stripe.api_key,
        "METERING_STRIPE_WEBHOOK_SECRET": front.stripe.webhook_secret,
        "METERING_STRIPE_API_BASE": front.stripe.url,
    }
    told = run_command("credits", "reconcile", "--dry-run", environment=variables)
    assert told.returncode == 0, told.stderr
    assert "would mend  org_a" in told.stdout
    assert front.credits() == 0
    mended = run_command("credits", "reconcile", environment=variables)
    assert mended.returncode == 0, mended.stderr
    assert "mended  org_a" in mended.stdout
    assert front.credits() == 2
    assert front.stripe.api_key not in mended.stdout + mended.stderr
