"""Whichever webhooks of a partner are lost, reconciliation ends in the same state."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from api.storage.ledgers import Grant, OutboxFact
from api.storage.purchases import BoughtGrant, Invoice, ProviderCursor, Purchase, Subscription
from tests.cli.conftest import RunCommand, run_command
from tests.partners.conftest import Reference
from tests.partners.shop import CREDITS_MICRO, PARTNER, Shop, open_shop

__all__ = ["run_command"]


@pytest.fixture(scope="module")
def lasting_shop(
    lasting_reference: Reference, tmp_path_factory: pytest.TempPathFactory, migrated: Path
) -> Iterator[Shop]:
    with open_shop(lasting_reference, tmp_path_factory.mktemp("shop"), migrated) as opened:
        yield opened


@pytest.fixture
def shop(lasting_shop: Shop) -> Shop:
    """Nothing was bought yet."""
    lasting_shop.forget()
    return lasting_shop


def history(shop: Shop, lost: set[int]) -> None:
    """A pending purchase that succeeds, a renewal, two refunds, and the end of the subscription;
    of these five webhooks the ones of these numbers are lost."""
    reference = shop.reference

    def step(number: int, switch: str, **body: Any) -> None:
        reference.control("webhooks", mode="drop" if number in lost else "deliver")
        reference.control(switch, **body)

    reference.control("next", outcome="pending")
    assert shop.buy("monthly").json()["status"] == "pending"
    (charge,) = shop.charges()
    subscription = reference.state()["subscriptions"][0]["subscription_id"]
    step(0, f"charges/{charge['charge_id']}/succeed")
    step(1, f"subscriptions/{subscription}/renew")
    step(2, f"charges/{charge['charge_id']}/refund", amount_minor=1_000)
    step(3, f"charges/{charge['charge_id']}/refund", amount_minor=500)
    step(4, f"subscriptions/{subscription}/renew", outcome="declined")
    shop.until_worked_off()


@pytest.mark.parametrize(
    "lost",
    [set(range(5)), {0}, {1}, {2}, {3}, {4}, {0, 1, 2}, {2, 3}, {1, 4}],
    ids=lambda lost: "".join(map(str, sorted(lost))),
)
def test_whichever_webhooks_are_lost(shop: Shop, lost: set[int]) -> None:
    history(shop, lost)
    report = shop.reconcile()
    assert (report.failures, report.unmatched) == ([], [])
    charges = shop.charges()
    # Half of the first three packages is refunded; the second three are whole.
    assert [shop.grants()[charge["charge_id"]][1] for charge in charges[:2]] == [
        CREDITS_MICRO * 3 // 2,
        CREDITS_MICRO * 3,
    ]
    assert len(shop.grants()) == 2
    assert shop.purchase().state == "paid"
    assert shop.subscription().status == "past_due"
    before = shop.picture()
    assert shop.reconcile().differences == []
    shop.reference.control("webhooks", mode="deliver")
    shop.reference.control("webhooks/repeat")
    shop.until_worked_off()
    assert shop.picture() == before
    (cursor,) = shop.rows(ProviderCursor)
    assert cursor.provider == PARTNER


def test_a_partner_that_does_not_answer_leaves_the_cursor(shop: Shop) -> None:
    shop.bought()
    shop.reference.control("away", away=True)
    report = shop.reconcile()
    assert report.failures
    assert shop.rows(ProviderCursor) == []
    assert shop.left() == 3 * CREDITS_MICRO


def test_the_command_mends_and_a_rehearsal_does_not(shop: Shop, run_command: RunCommand) -> None:
    shop.reference.control("next", outcome="pending")
    shop.buy()
    shop.reference.control("webhooks", mode="drop")
    (charge,) = shop.charges()
    shop.reference.control(f"charges/{charge['charge_id']}/succeed")
    settings = shop.served.app.state.api.settings
    rehearsed = run_command("credits", "reconcile", "--dry-run", settings=settings)
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert f"would mend  org_a {shop.purchase().id}: granted" in rehearsed.stdout
    assert shop.grants() == {}
    mended = run_command("credits", "reconcile", settings=settings)
    assert mended.returncode == 0, mended.stderr
    assert len(shop.grants()) == 1
    again = run_command("credits", "reconcile", settings=settings)
    assert f"{PARTNER} since" in again.stdout
    assert "0 mended" in again.stdout


def test_metrics_tell_what_is_not_known_and_when_it_was_compared(shop: Shop) -> None:
    shop.reference.control("away", away=True)
    shop.buy()
    text = shop.client.get("/metrics").text
    assert "metering_partner_purchases_unclear 1.0" in text
    shop.reference.control("away", away=False)
    shop.reconcile()
    text = shop.client.get("/metrics").text
    assert "metering_partner_purchases_unclear 0.0" in text
    assert 'metering_partner_last_reconciled_timestamp_seconds{partner="reference"}' in text
    assert (
        'metering_partner_requests_total{operation="charge",outcome="ok",partner="reference"}'
        in text
    )


def test_after_an_older_backup_purchases_are_made_again(shop: Shop) -> None:
    shop.bought("monthly")
    provider_id = shop.subscription().provider_id
    shop.reference.control(f"subscriptions/{provider_id}/renew")
    shop.until(lambda: len(shop.grants()) == 2)
    shop.until_worked_off()
    before = shop.picture()
    with shop.served.control.store.write() as session:
        for table in (BoughtGrant, Invoice, Subscription, Purchase, OutboxFact, Grant):
            session.execute(delete(table))
    report = shop.reconcile()
    assert (report.failures, report.unmatched) == ([], [])
    assert any("made again" in difference for difference in report.differences)
    after = shop.picture()
    # Who bought it the partner was never told.
    for row in (before[0], after[0]):
        row.pop("bought_by")
    assert after == before
