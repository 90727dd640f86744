"""`kill -9` of an API process while people buy and pay: every payment ends in one grant."""

import random
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from api.rules.billing_profiles import enable_billing
from api.rules.change import Control
from api.rules.groups import create_group
from api.rules.keys import Scope, create_key
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.packages import PackageTerms, create_package
from api.storage.migrate import migrate
from api.storage.purchases import STRIPE
from api.storage.store import Store, database_url
from deploy.embedded.child import ChildProcess, clean_environment
from deploy.embedded.ports import free_port
from schemas.settings import Settings
from tests.api.serving import SETUP
from tests.money.books import differences, read_books
from tests.money.oracle import Objects, Sale
from tests.stripe.running import RunningStripe, running_stripe

KILLS, PURCHASES_LEAST = 4, 6
CHILD = "from api.server import run; from schemas.settings import Settings; run(Settings())"
POOL = ("group", "group_one")
CREDITS_MICRO, PRICE_MINOR = 250_000_003, 2_500


class Shop:
    """What must survive of it is on the disk and in Stripe."""

    def __init__(self, directory: Path, stripe: RunningStripe) -> None:
        self.directory, self.stripe = directory, stripe
        self.port = free_port()
        self.api = ChildProcess("api", directory / "api.log", die_with_parent=True)
        self.store = Store(database_url(Settings(data_dir=directory)))
        migrate(self.store)
        self.control = Control(self.store, lambda: datetime.now(UTC), b"x" * 16)
        with self.control.transaction(SETUP) as transaction:
            change = create_organization(transaction, "Acme", OrganizationSettings(), "org_a")
            create_group(change, "One", POOL[1])
            enable_billing(change, "group", POOL[1], STRIPE)
            terms = PackageTerms("p", CREDITS_MICRO, PRICE_MINOR, "USD", sold_monthly=True)
            create_package(transaction, terms, "pkg")
            self.secret = create_key(transaction, Scope.ADMIN, "test", "org_a").secret
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", auth=(self.secret, ""), timeout=5
        )
        stripe.control.webhooks_to(
            f"http://127.0.0.1:{self.port}/webhooks/stripe", stripe.webhook_secret
        )

    def start(self) -> None:
        variables = {
            "METERING_KAFKA_BOOTSTRAP": "127.0.0.1:9",
            "METERING_DATA_DIR": str(self.directory),
            "METERING_API_PORT": str(self.port),
            "METERING_API_PUBLISH": "false",
            "METERING_LOG_LEVEL": "error",
            "METERING_STRIPE_API_KEY": self.stripe.api_key,
            "METERING_STRIPE_WEBHOOK_SECRET": self.stripe.webhook_secret,
            "METERING_STRIPE_API_BASE": self.stripe.url,
        }
        self.api.start([sys.executable, "-c", CHILD], clean_environment(variables))
        self.api.wait_until(self.is_live, 60)

    def is_live(self) -> bool:
        try:
            return self.client.get("/health/live").status_code == 200
        except httpx.TransportError:
            return False

    def buy(self, number: int, *, monthly: bool) -> bool:
        """Whether it was answered; who was not asks again with the same key."""
        body = {"package_id": "pkg", "kind": "monthly" if monthly else "one_time", "quantity": 3}
        try:
            answer = self.client.post(
                "/v1/organizations/org_a/groups/group_one/purchases",
                headers={"Idempotency-Key": f"buy {number}"},
                json=body,
            )
        except httpx.TransportError:
            return False
        assert answer.status_code in (201, 503), answer.text
        return answer.status_code == 201

    def pay_all(self) -> None:
        for session in self.stripe.control.all("checkout.session"):
            if session["status"] == "open":
                self.stripe.control.pay(session["id"])

    def sales(self) -> dict[str, Sale]:
        """Every key was one purchase; what was sold is in Stripe's metadata too."""
        sessions = self.stripe.control.all("checkout.session")
        return {
            each["client_reference_id"]: Sale(
                each["client_reference_id"],
                "org_a",
                POOL,
                each["mode"] == "subscription",
                3,
                CREDITS_MICRO,
                PRICE_MINOR,
            )
            for each in sessions
        }

    def objects(self) -> Objects:
        kinds = ("checkout.session", "payment_intent", "charge", "refund", "dispute")
        more = ("subscription", "invoice", "invoice_payment")
        return Objects({kind: self.stripe.control.all(kind) for kind in (*kinds, *more)})


@pytest.mark.timeout(300)
def test_killed_between_any_two_steps_of_buying(tmp_path: Path) -> None:
    chance = random.Random(11)
    with running_stripe(frozen=False, signed_at="real") as stripe:
        shop = Shop(tmp_path, stripe)
        bought = 0
        for _ in range(KILLS):
            shop.start()
            timer = threading.Timer(chance.uniform(0.05, 0.8), shop.api.kill)
            timer.start()
            while shop.api.is_running:
                bought += shop.buy(bought, monthly=bool(bought % 2))
                shop.pay_all()
            timer.join()
        shop.start()
        # What the last kill cut off is repeated, as its buyer would: nobody else would pay for it.
        while not shop.buy(bought, monthly=bool(bought % 2)):
            time.sleep(0.05)
        bought += 1
        while bought < PURCHASES_LEAST:
            bought += shop.buy(bought, monthly=bool(bought % 2))
        await_converged(shop, bought)
        shop.api.stop(10)
        check(shop, bought)
        shop.client.close()
        shop.store.close()


def await_converged(shop: Shop, bought: int) -> None:
    """By itself, from webhooks that come again and from what the former ones left behind."""
    for _ in range(1_200):
        shop.pay_all()
        books = read_books(shop.store)
        states = [each.state for each in books.purchases.values()]
        if states == ["paid"] * bought:
            return
        time.sleep(0.05)
    raise AssertionError(states)


def check(shop: Shop, bought: int) -> None:
    sales = shop.sales()
    assert len(sales) == bought >= PURCHASES_LEAST
    books, objects = read_books(shop.store), shop.objects()
    assert differences(books, objects, sales, set(), shop.stripe.control.now_s()) == []
    assert sum(books.pools.values()) == bought * 3 * CREDITS_MICRO
