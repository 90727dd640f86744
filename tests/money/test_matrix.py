"""Any subset of webhooks may be lost: after reconciliation the state is the same as with all."""

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.money.books import Books, differences, read_books
from tests.money.oracle import Thing
from tests.money.world import POOLS, World

DAY_S = 86_400
PERIOD_S = 31 * DAY_S
SEEDS = int(os.environ.get("METERING_MONEY_SUBSETS", "1"))
EVENTS_MAX = 200
"""More than the story has; what is beyond is never lost."""


def buy(world: World, name: str, *, monthly: bool = False) -> str:
    """A purchase's session; the packages' names tell the steps of the story apart."""
    kind = "monthly" if monthly else "one_time"
    path = f"{world.path(POOLS[0])}/purchases"
    body = {"package_id": "pkg_large", "kind": kind, "quantity": 2}
    answer = world.request("POST", path, name, **body)
    assert answer.status_code == 201, answer.text
    world.note_sales()
    session_id: str = answer.json()["checkout_url"].rpartition("/")[2]
    return session_id


def charge_of(world: World, session_id: str) -> Thing:
    session = world.driver.object(session_id)
    return world.objects().all("charge", payment_intent=session["payment_intent"])[-1]


def refund(world: World, charge: Thing, amount: int) -> None:
    world.in_dashboard("POST", "refunds", charge=charge["id"], amount=amount)


def story(world: World, told: Callable[[], None]) -> None:
    """A month of a shop: everything of the table of states happens to somebody. `told` is called
    when Stripe has something to tell."""
    names = ("paid", "refunded", "slow", "returned", "expired", "lost", "won")
    sessions = {name: buy(world, name) for name in names}
    months = {name: buy(world, name, monthly=True) for name in ("kept", "late", "never", "left")}
    for name in ("paid", "refunded", "lost", "won"):
        world.driver.pay(sessions[name])
    for name in ("slow", "returned"):
        world.driver.pay(sessions[name], "processing")
    for session_id in months.values():
        world.driver.pay(session_id)
    told()
    refund(world, charge_of(world, sessions["refunded"]), 1_234)
    world.driver.settle(sessions["slow"], succeeds=True)
    world.driver.settle(sessions["returned"], succeeds=False)
    disputes = {
        name: world.driver.dispute(charge_of(world, sessions[name])["id"])
        for name in ("lost", "won")
    }
    told()
    world.advance(2 * DAY_S)
    world.driver.lose_dispute(disputes["lost"]["id"])
    world.driver.win_dispute(disputes["won"]["id"])
    refund(world, charge_of(world, sessions["refunded"]), 66)
    left = world.driver.object(months["left"])["subscription"]
    path = f"subscriptions/{left}"
    world.in_dashboard("POST", path, cancel_at_period_end="true")
    told()
    world.advance(PERIOD_S - 2 * DAY_S)
    told()
    # Of three renewals one is paid later, one later in two parts, and one never.
    world.driver.next_payments("failed", 3)
    world.advance(2 * 3_600)
    told()
    open_ones = [
        each
        for each in world.objects().all("invoice", status="open")
        if each["billing_reason"] == "subscription_cycle"
    ]
    for invoice, sums in zip(open_ones, ([2_000, 3_000], [5_000]), strict=False):
        world.driver.pay_invoice(invoice["id"], sums)
    told()
    world.driver.next_payments("failed", 50)
    world.advance(10 * DAY_S)
    told()


def told_all_but(world: World, lost: frozenset[int]) -> Callable[[], None]:
    number = 0

    def told() -> None:
        nonlocal number
        for event in world.new_events():
            if number not in lost:
                world.run(world.deliver(event))
            number += 1
        world.run(world.work_off())

    return told


def end_of_story(lost: frozenset[int]) -> dict[str, object]:
    """What is true at the end, by the names of the story: ids are others each time."""
    with World() as world:
        story(world, told_all_but(world, lost))
        world.converged()
        books = read_books(world.api.store)
        assert differences(books, world.objects(), world.sales, set(), world.now_s) == []
        return named(books, list(world.sales))


def named(books: Books, order: list[str]) -> dict[str, object]:
    shown = {}
    for number, purchase_id in enumerate(order):
        written = books.purchases[purchase_id]
        nameless = replace(written, session_id=None, paid_invoices=frozenset())
        shown[str(number)] = (nameless, len(written.paid_invoices))
    return {**shown, "pools": books.pools, "unmatched": books.unmatched}


@pytest.fixture(scope="module")
def with_all() -> dict[str, object]:
    return end_of_story(frozenset())


def lost_by_chance(seed: int) -> frozenset[int]:
    chance = random.Random(seed)
    share = chance.random()
    return frozenset(number for number in range(EVENTS_MAX) if chance.random() < share)


SUBSETS = {
    "all are lost": frozenset(range(EVENTS_MAX)),
    "every other": frozenset(range(0, EVENTS_MAX, 2)),
    **{f"by chance {seed}": lost_by_chance(seed) for seed in range(SEEDS)},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lost", SUBSETS.values(), ids=SUBSETS.keys())
def test_any_subset_of_webhooks_may_be_lost(
    with_all: dict[str, object], lost: frozenset[int]
) -> None:
    assert end_of_story(lost) == with_all


@pytest.mark.timeout(300)
def test_the_story_has_every_row_of_the_table(with_all: dict[str, object]) -> None:
    states = {value[0].state for value in with_all.values() if isinstance(value, tuple)}
    assert states == {"paid", "failed", "expired"}
    subscriptions = {
        value[0].subscription for value in with_all.values() if isinstance(value, tuple)
    }
    assert {("active", False), ("canceled", True), ("canceled", False)} <= subscriptions
