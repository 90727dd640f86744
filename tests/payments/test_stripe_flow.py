"""Each row of the table of states, with the stand-in: what Stripe does, and what is then true."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.payments.storefront import CREDITS, Storefront, month, storefront


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Storefront]:
    with storefront(tmp_path) as opened:
        yield opened


def test_a_paid_session_is_one_grant(front: Storefront) -> None:
    bought = front.buy(quantity=3)
    assert front.purchase(bought["id"]).state == "awaiting_payment"
    front.pay(bought["id"])
    session_id = front.session_id(bought["id"])
    assert front.grants() == {f"stripe:{session_id}": (3 * CREDITS, False)}
    assert front.purchase(bought["id"]).state == "paid"
    assert front.facts() == 1
    assert front.unmatched() == []


@pytest.mark.parametrize("kind", ["one_time", "monthly"])
def test_the_buyer_reads_what_it_is_for(front: Storefront, kind: str) -> None:
    bought = front.buy(kind)
    page = httpx.get(str(front.purchase(bought["id"]).checkout_url), trust_env=False)
    assert "2 x 1,000 credits for group group_a of org_a" in page.text


def test_a_session_that_nobody_pays_expires(front: Storefront) -> None:
    bought = front.buy()
    front.advance(24 * 3600)
    assert front.purchase(bought["id"]).state == "expired"
    assert front.grants() == {}


def test_a_payment_that_comes_later_is_granted_when_it_comes(front: Storefront) -> None:
    bought = front.buy()
    front.pay(bought["id"], "processing")
    assert front.purchase(bought["id"]).state == "awaiting_payment"
    assert front.credits() == 0
    front.stripe.control.settle(front.session_id(bought["id"]), succeeds=True)
    front.deliver()
    assert (front.purchase(bought["id"]).state, front.credits()) == ("paid", 2)


def test_a_payment_that_does_not_come_fails(front: Storefront) -> None:
    bought = front.buy()
    front.pay(bought["id"], "processing")
    front.stripe.control.settle(front.session_id(bought["id"]), succeeds=False)
    front.deliver()
    purchase = front.purchase(bought["id"])
    assert purchase.state == "failed"
    assert purchase.message
    assert front.credits() == 0


def test_a_subscription_grants_each_month(front: Storefront) -> None:
    bought = front.subscribe(quantity=2)
    assert front.credits() == 2
    front.advance(month(front, bought) + 2 * 3600)
    assert [left for left, _ in front.grants().values()] == [2 * CREDITS] * 2
    assert not any(awaiting for _, awaiting in front.grants().values())


def test_a_renewal_is_there_before_its_midnight_and_is_confirmed_by_its_invoice(
    front: Storefront,
) -> None:
    bought = front.subscribe()
    front.advance(month(front, bought) - 1800)
    end = front.subscription(bought).current_period_end
    assert end is not None
    (placed,) = front.chore("renewals")
    assert placed == f"stripe:{front.subscription(bought).provider_id}:{int(end.timestamp())}"
    assert front.grants()[placed] == (CREDITS, True)
    assert front.chore("renewals") == []
    front.advance(3 * 3600)
    assert front.grants()[placed] == (CREDITS, False)
    assert front.credits() == 2


def test_a_drafted_renewal_is_in_place_too(front: Storefront) -> None:
    bought = front.subscribe()
    front.advance(month(front, bought) + 60)
    assert [awaiting for _, awaiting in front.grants().values()] == [False, True]


def test_a_renewal_that_is_never_paid_is_revoked(front: Storefront) -> None:
    bought = front.subscribe()
    front.stripe.control.next_payments("failed", times=9)
    front.advance(month(front, bought) + 2 * 3600)
    assert front.subscription(bought).status == "past_due"
    assert front.credits() == 2
    front.advance(20 * 86_400)
    assert front.subscription(bought).status == "canceled"
    assert front.credits() == 1


def test_without_renewals_ahead_only_what_is_paid_is_there(tmp_path: Path) -> None:
    with storefront(tmp_path, renewals_awaiting=False) as front:
        bought = front.subscribe()
        front.advance(month(front, bought) + 60)
        assert front.credits() == 1
        front.advance(2 * 3600)
        assert front.credits() == 2


def test_what_is_cancelled_ends_with_its_period_and_can_be_resumed(front: Storefront) -> None:
    bought = front.subscribe()
    shown = front.post(f"subscriptions/{bought}/cancel", status=200)
    assert shown["cancel_at_period_end"] is True
    shown = front.post(f"subscriptions/{bought}/resume", status=200)
    assert shown["cancel_at_period_end"] is False
    front.post(f"subscriptions/{bought}/cancel", status=200)
    front.advance(month(front, bought) - 1800)
    assert front.chore("renewals") == []
    front.advance(3 * 3600)
    assert front.subscription(bought).status == "canceled"
    assert front.credits() == 1


def test_refunds_revoke_their_share_however_many_there_are(front: Storefront) -> None:
    bought = front.buy(quantity=4)
    front.pay(bought["id"])
    client = front.stripe.client()
    session = client.v1.checkout.sessions.retrieve(front.session_id(bought["id"]))
    for part in (1_000, 2_000):
        client.v1.refunds.create({"payment_intent": str(session.payment_intent), "amount": part})
        front.deliver()
    assert front.credits() == 1
    client.v1.refunds.create({"payment_intent": str(session.payment_intent)})
    front.deliver()
    assert front.credits() == 0


def test_a_refunded_renewal_is_found_by_its_payment_intent(front: Storefront) -> None:
    bought = front.subscribe()
    front.advance(month(front, bought) + 2 * 3600)
    newest = front.stripe.control.all("charge")[-1]
    front.stripe.client().v1.refunds.create({"charge": newest["id"]})
    front.deliver()
    assert sorted(left for left, _ in front.grants().values()) == [0, CREDITS]


@pytest.mark.parametrize(("won", "left"), [(True, 2), (False, 0)])
def test_a_dispute_takes_what_it_holds_back(front: Storefront, won: bool, left: int) -> None:
    bought = front.buy()
    front.pay(bought["id"])
    (charge,) = front.stripe.control.all("charge")
    dispute = front.stripe.control.dispute(charge["id"])
    front.deliver()
    assert front.credits() == 0
    close = front.stripe.control.win_dispute if won else front.stripe.control.lose_dispute
    close(dispute["id"])
    front.deliver()
    assert front.credits() == left


def test_a_subscription_that_the_dashboard_deletes_ends_here_too(front: Storefront) -> None:
    bought = front.subscribe()
    front.stripe.client().v1.subscriptions.cancel(front.subscription(bought).provider_id)
    front.deliver()
    assert front.subscription(bought).ended_at is not None
    assert front.credits() == 1


def test_what_has_ended_at_stripe_cannot_be_resumed(front: Storefront) -> None:
    bought = front.subscribe()
    front.post(f"subscriptions/{bought}/cancel", status=200)
    front.stripe.client().v1.subscriptions.cancel(front.subscription(bought).provider_id)
    refused = front.post(f"subscriptions/{bought}/resume", status=409)
    assert refused["error"]["code"] == "subscription_ended"


def test_invoices_are_to_the_organization_and_its_group(front: Storefront) -> None:
    front.pay(front.buy()["id"])
    front.subscribe()
    invoices = front.stripe.control.all("invoice")
    assert [invoice["customer_name"] for invoice in invoices] == ["org_a, Group A"] * 2


def test_a_deleted_customer_is_followed_and_replaced(front: Storefront) -> None:
    bought = front.subscribe()
    (customer,) = front.stripe.control.all("customer")
    front.stripe.client().v1.customers.delete(customer["id"])
    front.deliver()
    assert front.subscription(bought).status == "canceled"
    again = front.buy()
    front.pay(again["id"])
    assert front.purchase(again["id"]).state == "paid"
    assert front.unmatched() == []


def test_deleting_a_group_ends_its_checkouts_and_subscriptions(front: Storefront) -> None:
    bought = front.subscribe()
    opened = front.buy()
    answer = front.admin.delete("/v1/organizations/org_a/groups/group_a?confirm_name=Group%20A")
    assert answer.is_success, answer.text
    front.advance(1)
    front.deliver()
    assert front.subscription(bought).status == "canceled"
    assert front.purchase(opened["id"]).state == "expired"
    session = front.stripe.control.object(front.session_id(opened["id"]))
    assert session["status"] == "expired"


def test_a_year_of_renewals_is_read_with_few_requests(front: Storefront) -> None:
    bought = front.subscribe()
    for _ in range(5):
        front.advance(month(front, bought) + 2 * 3600)
    charges = front.stripe.control.all("charge")
    front.stripe.client().v1.refunds.create({"charge": charges[2]["id"]})
    front.deliver()
    assert [left for left, _ in front.grants().values()].count(0) == 1
    before = len(front.stripe.requests)
    front.run(front.desk.payments.of("stripe").look("org_a", bought))
    asked = [request.path for request in front.stripe.requests[before:]]
    assert len(asked) == 4
    assert asked[-1].startswith("/v1/charges")


def test_what_was_paid_and_does_not_fit_is_put_aside(front: Storefront) -> None:
    bought = front.buy()
    session_id = front.session_id(bought["id"])
    front.stripe.control.change(session_id, amount_subtotal=1)
    front.pay(bought["id"])
    assert front.unmatched() == [("checkout.session", "does_not_fit")]
    assert front.credits() == 0
    front.stripe.control.change(session_id, "checkout.session.completed", amount_subtotal=2_000)
    front.deliver()
    assert (front.unmatched(), front.credits()) == ([], 2)


def test_a_refund_of_less_than_nothing_gives_no_credits(front: Storefront) -> None:
    bought = front.buy()
    front.pay(bought["id"])
    (charge,) = front.stripe.control.all("charge")
    front.stripe.control.change(charge["id"], "charge.refunded", amount_refunded=-1_000)
    front.stripe.control.flush()
    front.until(lambda: not front.desk.inbox.is_busy and front.waiting() == [])
    assert front.credits() == 2


def test_an_inquiry_holds_nothing_back_and_an_unknown_state_is_not_guessed(
    front: Storefront,
) -> None:
    bought = front.buy()
    front.pay(bought["id"])
    (charge,) = front.stripe.control.all("charge")
    dispute = front.stripe.control.dispute(charge["id"])["id"]
    for status, left in (
        ("warning_needs_response", 2),
        ("of_the_future", 2),
        ("needs_response", 0),
    ):
        front.stripe.control.change(dispute, "charge.dispute.created", status=status)
        front.stripe.control.flush()
        front.until(lambda: not front.desk.inbox.is_busy and front.waiting() == [])
        assert front.credits() == left, status


def test_an_invoice_of_many_lines_is_read_to_its_last_page(front: Storefront) -> None:
    front.subscribe()
    (invoice,) = front.stripe.control.all("invoice")
    line = invoice["lines"]["data"][0]
    more = [line | {"id": f"il_more_{number}", "amount": 0} for number in range(120)]
    lines = invoice["lines"] | {"data": [*more, line], "total_count": 121}
    front.stripe.control.change(invoice["id"], "invoice.updated", lines=lines)
    front.deliver()
    assert front.credits() == 1
    assert front.unmatched() == []
