"""The demo's credits are bought by HTTP, once, and by themselves only where no money moves."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.options import PaymentOptions
from api.seed import seed_organization
from cli.up import demo
from cli.up.demo_credits import BOUGHT, sell
from cli.up.demo_state import BUYING_GROUP, DEMO_ORGANIZATION
from schemas.settings import Settings
from tests.api.serving import Served, serving
from tests.stripe.running import RunningStripe, running_stripe

Shop = tuple[Served, RunningStripe]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with ExitStack() as stack:
        stripe = stack.enter_context(running_stripe(frozen=False, signed_at="real"))
        payments = PaymentOptions(
            api_key=SecretStr(stripe.api_key),
            webhook_secret=SecretStr(stripe.webhook_secret),
            api_base=stripe.url,
        )
        settings = Settings(data_dir=tmp_path)
        served = stack.enter_context(serving(settings, payments=payments))
        stripe.control.webhooks_to(f"{served.url}/webhooks/stripe", stripe.webhook_secret)
        now = datetime.now(UTC)
        seed_organization(settings, demo.seed(demo.COMPANIES[0], now, now), demo.since(now))
        yield served, stripe


def sold(served: Served, *, by_stand_in: bool = True, by_partner: bool = False) -> str:
    operator, admin = served.key("operator"), served.key("admin", DEMO_ORGANIZATION)
    return sell(served.url, operator, admin, by_stand_in=by_stand_in, by_partner=by_partner)


def purchases(served: Served) -> list[tuple[str, str]]:
    """Kind and state, once none is on its way any more."""
    path = f"/v1/organizations/{DEMO_ORGANIZATION}/groups/{BUYING_GROUP}/purchases"
    with served.client("admin", DEMO_ORGANIZATION) as client:
        while True:
            items = client.get(path).json()["items"]
            if all(item["state"] != "awaiting_payment" for item in items):
                return sorted((item["kind"], item["state"]) for item in items)


def test_it_is_bought_once_and_paid(shop: Shop) -> None:
    served, stripe = shop
    assert sold(served) == ""
    assert purchases(served) == [("monthly", "paid"), ("one_time", "paid")]
    assert sold(served) == ""
    assert len(purchases(served)) == len(BOUGHT)
    assert len(stripe.control.all("checkout.session")) == len(BOUGHT)


def test_nothing_is_bought_by_itself_with_a_key_of_stripes_own(shop: Shop) -> None:
    served, stripe = shop
    assert sold(served, by_stand_in=False) == ""
    assert purchases(served) == []
    assert stripe.control.all("checkout.session") == []


def test_what_is_in_the_way_is_said_and_stops_nothing(shop: Shop) -> None:
    served, _ = shop
    assert "no_partner" in sold(served, by_partner=True)
    with served.client("admin", DEMO_ORGANIZATION) as client:
        path = f"/v1/organizations/{DEMO_ORGANIZATION}/groups/{BUYING_GROUP}"
        answer = client.delete(path, params={"confirm_name": "Editors"})
    assert answer.is_success, answer.text
    assert "404" in sold(served)
    assert "no credits are bought" in sell(
        "http://127.0.0.1:1", "", "", by_stand_in=True, by_partner=False
    )
