"""Each row of the table of states, with the stand-in: what Stripe does, and what is then true."""

from collections.abc import Iterator
from pathlib import Path

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
