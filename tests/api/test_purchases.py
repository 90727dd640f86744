"""What may be bought by whom: profiles, purchases and their limits, on both databases."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from api.errors import Refused
from api.reading import billing
from api.repair.replay import apply_fact
from api.rules import purchases as rules
from api.rules.billing_profiles import customer_made, enable_billing
from api.rules.change import Change, Control
from api.rules.groups import create_group, delete_group
from api.rules.keys import Scope, create_key
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.packages import PackageTerms, change_package, create_package, retire_package
from api.rules.purchases import (
    LOOK_AFTER,
    Order,
    create_purchase,
    session_made,
    subscription_to_change,
)
from api.rules.websites import create_website
from api.storage.ledgers import ApiKey
from api.storage.models import Organization
from api.storage.purchases import STRIPE, BillingProfile, Purchase
from schemas.records import GroupDeleted, MembershipRecord, PoolKind
from tests.api.conftest import ADMIN, Clock
from tests.api.seen import actions
from tests.api.shop import ORDER, THOUSAND, open_shop, subscribe

PARTNER = "partner:acme"


@pytest.fixture
def shop(control: Control) -> Control:
    open_shop(control)
    return control


def refusal(control: Control, do: Callable[..., object]) -> tuple[int, str]:
    with pytest.raises(Refused) as refused, control.change("org_a", ADMIN) as change:
        do(change)
    assert refused.value.what_to_do
    return refused.value.status, refused.value.code


def bought(
    control: Control, order: Order = ORDER, pool: tuple[PoolKind, str] = ("group", "lab")
) -> Purchase:
    with control.change("org_a", ADMIN) as change:
        return create_purchase(change, *pool, order)


def _buy(change: Change, pool: tuple[PoolKind, str]) -> Purchase:
    return create_purchase(change, *pool, ORDER)


def stored(control: Control, purchase_id: str) -> Purchase:
    with control.store.read() as session:
        return session.get_one(Purchase, ("org_a", purchase_id))


def profiles(control: Control) -> list[BillingProfile]:
    with control.store.read() as session:
        return list(session.scalars(select(BillingProfile)))


def test_billing_is_enabled_once(control: Control) -> None:
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Lab", "lab")
        first, is_new = enable_billing(change, "group", "lab", STRIPE)
        assert is_new
        again, is_new_again = enable_billing(change, "group", "lab", STRIPE)
        assert (again.id, is_new_again) == (first.id, False)
    assert len(profiles(control)) == 1
    assert actions(control).count("billing.enable") == 1


def test_whoever_is_paid_already_stays(control: Control) -> None:
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Lab", "lab")
        enable_billing(change, "group", "lab", PARTNER)
    answer = refusal(control, lambda change: enable_billing(change, "group", "lab", STRIPE))
    assert answer == (409, "billing_enabled_otherwise")


@pytest.mark.parametrize(
    ("pool", "answer"),
    [
        (("group", "group_unassigned"), (409, "reserved_group")),
        (("group", "nowhere"), (404, "not_found")),
        (("group", "gone"), (404, "not_found")),
        (("group", "of_b"), (404, "not_found")),
        (("website", "nowhere"), (404, "not_found")),
        (("website", "web_of_b"), (404, "not_found")),
    ],
)
def test_only_pools_of_the_organization_can_pay(
    shop: Control, pool: tuple[PoolKind, str], answer: tuple[int, str]
) -> None:
    with shop.transaction(ADMIN) as transaction:
        other = create_organization(transaction, "Other", OrganizationSettings(), "org_b")
        create_group(other, "Of B", "of_b")
        create_website(other, "B", "of_b", "web_of_b")
    with shop.change("org_a", ADMIN) as change:
        create_group(change, "Gone", "gone")
        enable_billing(change, "group", "gone", STRIPE)
        delete_group(change, "gone")
    assert refusal(shop, lambda change: enable_billing(change, *pool, STRIPE)) == answer
    assert refusal(shop, lambda change: create_purchase(change, *pool, ORDER)) == answer


def test_two_enables_at_the_same_moment_make_one_profile(control: Control) -> None:
    with control.change("org_a", ADMIN) as change:
        create_group(change, "Lab", "lab")

    def enable(_: int) -> str:
        with control.change("org_a", ADMIN) as change:
            return enable_billing(change, "group", "lab", STRIPE)[0].id

    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(enable, range(6)))
    assert ids == {row.id for row in profiles(control)}
    assert len(ids) == 1


def test_the_database_holds_one_open_profile_a_pool(shop: Control) -> None:
    row: dict[str, object] = {"organization_id": "org_a", "pool_kind": "group", "pool_id": "lab"}
    row |= {"provider": STRIPE, "created_at": shop.clock()}
    with pytest.raises(IntegrityError), shop.store.write() as session:
        session.execute(insert(BillingProfile).values(id="bill_2", **row))
    with shop.store.write() as session:
        closed = {"id": "bill_3", "closed_at": shop.clock()}
        session.execute(insert(BillingProfile).values(**row, **closed))


def test_a_purchase_keeps_what_it_was_sold_for(shop: Control) -> None:
    purchase = bought(shop, Order("pkg", "monthly", 50))
    with shop.transaction(ADMIN) as transaction:
        change_package(transaction, "pkg", {"price_minor": 5, "name": "Else"})
        retire_package(transaction, "pkg")
    row = stored(shop, purchase.id)
    sold = (row.package_name, row.package_credits_micro, row.package_price_minor, row.currency)
    assert sold == ("1,000 credits", 1_000_000_000, 1_000, "USD")
    assert (row.kind, row.quantity, row.state) == ("monthly", 50, "created")
    assert (row.provider, row.bought_by) == (STRIPE, ADMIN.id)
    assert row.look_at == row.created_at + rules.LOOK_AFTER
    assert actions(shop).count("purchase.create") == 1


def test_the_price_of_stripe_is_that_of_the_kind(shop: Control) -> None:
    with shop.transaction(ADMIN) as transaction:
        ids = {"stripe_one_time_price_id": "price_once", "stripe_monthly_price_id": "price_month"}
        change_package(transaction, "pkg", ids)
    assert bought(shop, Order("pkg", "one_time", 1)).stripe_price_id == "price_once"
    assert bought(shop, Order("pkg", "monthly", 1)).stripe_price_id == "price_month"


@pytest.mark.parametrize(
    ("order", "answer"),
    [
        (Order("pkg", "one_time", 0), (400, "invalid")),
        (Order("pkg", "one_time", 51), (400, "invalid")),
        (Order("pkg", "one_time", -1), (400, "invalid")),
        (Order("nowhere", "one_time", 1), (404, "not_found")),
        (Order("retired", "one_time", 1), (409, "package_retired")),
        (Order("euros", "one_time", 1), (409, "currency_mismatch")),
        (Order("once", "monthly", 1), (409, "package_not_sold_so")),
        (Order("month", "one_time", 1), (409, "package_not_sold_so")),
    ],
)
def test_what_is_not_sold_cannot_be_bought(
    shop: Control, order: Order, answer: tuple[int, str]
) -> None:
    with shop.transaction(ADMIN) as transaction:
        for package_id, changed in (
            ("retired", {}),
            ("euros", {"currency": "EUR"}),
            ("once", {"sold_monthly": False}),
            ("month", {"sold_one_time": False}),
        ):
            create_package(transaction, PackageTerms(**{**THOUSAND, **changed}), package_id)
        retire_package(transaction, "retired")
    assert refusal(shop, lambda change: create_purchase(change, "group", "lab", order)) == answer
    with shop.store.read() as session:
        assert session.scalar(select(func.count()).select_from(Purchase)) == 0


def test_nothing_is_bought_before_billing_is_enabled(shop: Control) -> None:
    with shop.change("org_a", ADMIN) as change:
        create_group(change, "New", "new")
        create_website(change, "New", "new", "web_new")
    pools: list[tuple[PoolKind, str]] = [("group", "new"), ("website", "web_new")]
    for pool in pools:
        answer = refusal(shop, partial(_buy, pool=pool))
        assert answer == (409, "billing_not_enabled")


def test_unfinished_purchases_are_limited_also_at_the_same_moment(
    shop: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "UNFINISHED_MAX", 3)

    def buy(_: int) -> str:
        try:
            return bought(shop).id
        except Refused as refused:
            return refused.code

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(buy, range(6)))
    assert answers.count("too_many_unfinished_purchases") == 3
    with shop.store.write() as session:
        row = session.scalars(select(Purchase)).first()
        assert row is not None
        row.state = "paid"
    assert bought(shop).state == "created"
    assert bought(shop, pool=("website", "web")).state == "created"


def test_a_session_belongs_to_its_purchase_for_ever(shop: Control, clock: Clock) -> None:
    purchase, until = bought(shop), clock() + timedelta(days=1)
    for _ in range(2):
        with shop.change("org_a", ADMIN) as change:
            session_made(change, purchase.id, "cs_1", "https://pay.example", until)
        row = stored(shop, purchase.id)
        assert (row.state, row.session_id, row.revision) == ("awaiting_payment", "cs_1", 1)
        assert (row.checkout_url, row.look_at) == ("https://pay.example", until)
    other = refusal(shop, lambda change: session_made(change, purchase.id, "cs_2", None, None))
    assert other == (409, "other_session")
    unknown = refusal(shop, lambda change: session_made(change, "buy_0", "cs_2", None, None))
    assert unknown == (404, "not_found")
    second = bought(shop)
    with pytest.raises(IntegrityError), shop.change("org_a", ADMIN) as change:
        session_made(change, second.id, "cs_1", None, None)


def test_a_webhook_that_was_quicker_is_not_undone(shop: Control) -> None:
    purchase = bought(shop)
    with shop.store.write() as session:
        session.get_one(Purchase, ("org_a", purchase.id)).state = "paid"
    with shop.change("org_a", ADMIN) as change:
        session_made(change, purchase.id, "cs_1", "https://pay.example", None)
    assert stored(shop, purchase.id).state == "paid"


def test_a_session_that_was_made_while_the_group_was_deleted_is_ended_at_once(
    shop: Control, clock: Clock
) -> None:
    purchase = bought(shop)
    with shop.change("org_a", ADMIN) as change:
        delete_group(change, "lab")
    with shop.store.write() as session:
        session.get_one(Purchase, ("org_a", purchase.id)).look_at = None
    with shop.change("org_a", ADMIN) as change:
        session_made(change, purchase.id, "cs_1", "https://pay.example", clock() + LOOK_AFTER)
        now = change.now
    assert stored(shop, purchase.id).look_at == now


def test_a_profile_has_one_customer(shop: Control) -> None:
    profile = next(row for row in profiles(shop) if row.pool_id == "lab")
    for _ in range(2):
        with shop.change("org_a", ADMIN) as change:
            customer_made(change, profile.id, "cus_1")
    assert actions(shop).count("billing.customer") == 1
    other = refusal(shop, lambda change: customer_made(change, profile.id, "cus_2"))
    assert other == (409, "other_customer")
    assert refusal(shop, lambda change: customer_made(change, "x", "cus_1")) == (404, "not_found")


def subscribed(control: Control, *, has_ended: bool = False) -> Purchase:
    """A monthly purchase that was paid, with its subscription."""
    purchase = bought(control, Order("pkg", "monthly", 1))
    subscribe(control, purchase.id, has_ended=has_ended)
    return purchase


def test_deleting_a_group_closes_its_profile_and_has_what_still_pays_looked_at(
    shop: Control, clock: Clock
) -> None:
    waiting, live, over = bought(shop), subscribed(shop), subscribed(shop, has_ended=True)
    of_website = bought(shop, pool=("website", "web"))
    looks_before = stored(shop, of_website.id).look_at
    clock.forward(hours=1)
    with shop.change("org_a", ADMIN) as change:
        delete_group(change, "lab")
        now = change.now
    closed = {row.pool_id: row.closed_at for row in profiles(shop)}
    assert closed == {"lab": now, "web": None}
    looks = [stored(shop, one.id).look_at for one in (waiting, live, over, of_website)]
    assert looks == [now, now, None, looks_before]
    assert actions(shop).count("billing.close") == 1


def test_the_group_and_its_profile_end_together_or_not_at_all(shop: Control) -> None:
    def fail_after_deleting() -> None:
        with shop.change("org_a", ADMIN) as change:
            delete_group(change, "lab")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_deleting()
    with shop.store.read() as session:
        assert billing.open_profile(session, "org_a", "group", "lab") is not None


def test_only_live_subscriptions_of_the_pool_are_cancelled_and_resumed(shop: Control) -> None:
    live, over, once = subscribed(shop), subscribed(shop, has_ended=True), bought(shop)

    def steer(purchase_id: str, *, is_to_end: bool, pool: str = "lab") -> object:
        kind: PoolKind = "group" if pool == "lab" else "website"
        with shop.change("org_a", ADMIN) as change:
            return subscription_to_change(change, kind, pool, purchase_id, is_to_end=is_to_end)[1]

    assert steer(live.id, is_to_end=True) is True
    assert steer(live.id, is_to_end=False) is False
    assert actions(shop).count("subscription.cancel") == 1
    assert "subscription.resume" not in actions(shop)
    for purchase_id, pool, code in (
        (over.id, "lab", "subscription_ended"),
        (once.id, "lab", "not_found"),
        ("buy_0", "lab", "not_found"),
        (live.id, "web", "not_found"),
    ):
        with pytest.raises(Refused) as refused:
            steer(purchase_id, is_to_end=True, pool=pool)
        assert refused.value.code == code


def test_subscriptions_are_limited(shop: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "SUBSCRIPTIONS_MAX", 2)
    for has_ended in (False, True, False):
        subscribed(shop, has_ended=has_ended)
    monthly = Order("pkg", "monthly", 1)
    answer = refusal(shop, lambda change: create_purchase(change, "group", "lab", monthly))
    assert answer == (409, "too_many_subscriptions")
    assert bought(shop).kind == "one_time"
    assert bought(shop, monthly, ("website", "web")).kind == "monthly"


def test_a_group_that_facts_say_is_deleted_buys_nothing_more(shop: Control) -> None:
    """As `delete_group`, where an older backup was restored and facts are imported."""
    with shop.transaction(ADMIN) as transaction:
        key = create_key(transaction, Scope.GROUP_ADMIN, "lab's", "org_a", group_id="lab").key
    waiting = bought(shop)
    now = shop.clock() + timedelta(minutes=1)
    with shop.store.write() as session:
        organization = session.get_one(Organization, "org_a")
        version = organization.memberships_version + 1
        record = MembershipRecord("org_a", version, now, now, GroupDeleted("lab"))
        apply_fact(session, organization, record)
    with shop.store.read() as session:
        assert billing.open_profile(session, "org_a", "group", "lab") is None
        assert session.get_one(ApiKey, key.id).revoked_at == now
    assert stored(shop, waiting.id).look_at == now
