"""A process may die between any two steps: what it left is gone on with, nothing is done twice."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from api.payments import inbox, looking
from api.payments.desk import make_desk
from api.payments.partners.file import Partners
from api.payments.stripe import till
from api.rules.change import Actor
from api.rules.purchases import Order, create_purchase
from api.storage.purchases import ProviderEvent, Purchase
from tests.payments.storefront import CREDITS, Storefront, month, storefront
from tests.stripe.mock import StripeMock

BUYER = Actor("key:buyer", "api")


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Storefront]:
    with storefront(tmp_path) as opened:
        yield opened


class Killed(RuntimeError):
    """What a test raises in place of `kill -9`."""


def dies_once(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """The next call of a function does not happen, and what called it ends there."""
    real: Callable[..., Any] = getattr(module, name)
    calls = []

    def call(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise Killed(name)
        return real(*given, **named)

    monkeypatch.setattr(module, name, call)


def sessions(front: Storefront) -> int:
    return len(front.stripe.control.all("checkout.session"))


def ask_to_buy(front: Storefront, key: str) -> int:
    """On a connection of its own: the server ends the one on which something went wrong."""
    answer = front.admin.post(
        "/v1/organizations/org_a/groups/group_a/purchases",
        json={"package_id": "pkg_1000", "kind": "one_time", "quantity": 2},
        headers={"Idempotency-Key": key, "Connection": "close"},
    )
    return answer.status_code


def only_purchase(front: Storefront) -> Purchase:
    with front.store.read() as session:
        return session.scalars(select(Purchase)).one()


def test_between_the_row_and_the_session(front: Storefront) -> None:
    with front.served.control.change("org_a", BUYER) as change:
        row = create_purchase(change, "group", "group_a", Order("pkg_1000", "one_time", 1))
    assert sessions(front) == 0
    front.advance(180)
    assert sessions(front) == 1
    front.pay(row.id)
    assert front.credits() == 1


@pytest.mark.parametrize("step", ["_write_session", "customer_made", "session_made"])
def test_between_stripes_answer_and_our_row(
    front: Storefront, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    dies_once(monkeypatch, till, step)
    assert ask_to_buy(front, "one") == 500
    assert ask_to_buy(front, "one") == 201
    assert sessions(front) == 1
    assert len(front.stripe.control.all("customer")) == 1
    front.pay(only_purchase(front).id)
    assert front.credits() == 2


def test_the_inbox_goes_on_where_nobody_asks_again(
    front: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies_once(monkeypatch, till, "_write_session")
    assert ask_to_buy(front, "one") == 500
    front.advance(180)
    assert sessions(front) == 1
    assert only_purchase(front).state == "awaiting_payment"


def test_a_group_that_was_renamed_before_its_customer_was_written_down_still_buys(
    front: Storefront, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe refuses the profile's key with another name."""
    dies_once(monkeypatch, till, "customer_made")
    assert ask_to_buy(front, "one") == 500
    path = "/v1/organizations/org_a/groups/group_a"
    assert front.admin.patch(path, json={"name": "Renamed"}).is_success
    assert ask_to_buy(front, "one") == 201
    names = {customer["name"] for customer in front.stripe.control.all("customer")}
    assert {name.rpartition(", ")[2] for name in names} == {"Group A", "Renamed"}
    assert sessions(front) == 1


def test_an_answer_that_is_lost_is_asked_for_again(front: Storefront) -> None:
    lost = {"kind": "lost", "method": "POST", "path": "/v1/checkout/sessions", "times": 1}
    front.stripe.control.faults(lost)
    front.buy()
    assert sessions(front) == 1


def test_a_failure_that_stripe_repeats_for_a_day_holds_up_nobody(front: Storefront) -> None:
    """Each key fails for good: the library's own repeats use it up."""
    for path in ("/v1/customers", "/v1/checkout/sessions"):
        front.stripe.control.faults({"kind": "error", "method": "POST", "path": path, "times": 9})
        assert ask_to_buy(front, path) == 503
        front.stripe.control.faults()
        assert ask_to_buy(front, path) == 201
    assert sessions(front) == 2


def test_what_stripe_refuses_for_good_has_failed(front: Storefront) -> None:
    front.operator.patch(
        "/v1/packages/pkg_1000", json={"stripe_one_time_price_id": "price_that_is_not_there"}
    )
    assert ask_to_buy(front, "one") == 502
    purchase = only_purchase(front)
    assert purchase.state == "failed"
    assert "price_that_is_not_there" in purchase.message


@pytest.mark.parametrize(
    ("module", "step"), [(inbox, "_done"), (looking, "settle"), (till, "StripeReading")]
)
def test_while_a_webhook_is_worked_off(
    front: Storefront, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    bought = front.buy()
    dies_once(monkeypatch, module, step)
    front.pay(bought["id"])
    front.advance(30)
    assert front.grants() == {f"stripe:{front.session_id(bought['id'])}": (2 * CREDITS, False)}
    assert front.facts() == 1
    with front.store.read() as session:
        assert not session.scalars(
            select(ProviderEvent).where(ProviderEvent.processed_at.is_(None))
        ).all()


def test_what_was_stored_is_worked_off_by_the_next_process(front: Storefront) -> None:
    bought = front.buy()
    front.run(front.desk.inbox.stop())
    front.stripe.control.pay(front.session_id(bought["id"]))
    front.stripe.control.flush()
    assert front.credits() == 0

    async def next_process() -> None:
        desk = make_desk(front.served.control, front.options, front.served.url, Partners({}))
        await desk.inbox.work_off()
        await desk.stop()

    asyncio.run(next_process())
    assert front.credits() == 2


def test_looks_at_the_same_time_write_one_grant(front: Storefront) -> None:
    """Several processes look at once: an older picture is never written over a newer one."""
    bought = front.buy()
    front.run(front.desk.inbox.stop())
    front.stripe.control.pay(front.session_id(bought["id"]))

    async def looks() -> None:
        desks = [
            make_desk(front.served.control, front.options, front.served.url, Partners({}))
            for _ in range(3)
        ]
        tills = [desk.payments.of("stripe") for desk in desks]
        await asyncio.gather(*(till.look("org_a", bought["id"]) for till in tills))
        for desk in desks:
            await desk.stop()

    asyncio.run(looks())
    assert front.credits() == 2
    assert front.facts() == 1


def test_stripe_mock_takes_every_request_that_we_make(
    front: Storefront, stripe_mock: StripeMock
) -> None:
    once, monthly = front.buy(), front.subscribe()
    front.pay(once["id"])
    front.post("portal")
    front.post(f"subscriptions/{monthly}/cancel", status=200)
    front.post(f"subscriptions/{monthly}/resume", status=200)
    front.advance(month(front, monthly) - 1800)
    front.chore("renewals")
    front.advance(3 * 3600)
    charge = front.stripe.control.all("charge")[-1]
    front.stripe.control.dispute(charge["id"])
    front.deliver()
    front.reconcile()
    front.buy()
    assert front.desk.stripe is not None
    front.run(front.desk.stripe.requests.account())
    front.admin.delete("/v1/organizations/org_a/groups/group_a?confirm_name=Group%20A")
    front.advance(1)
    assert stripe_mock.refusals(front.stripe.requests) == []
