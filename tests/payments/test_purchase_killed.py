"""`kill -9` of the API while it waits for Stripe's answer about a purchase: the repeat goes on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from api.rules.change import Control
from api.rules.keys import Scope, create_key
from api.rules.organizations import OrganizationSettings, create_organization
from api.storage.migrate import migrate
from api.storage.purchases import Purchase
from api.storage.store import Store, database_url
from deploy.embedded.ports import free_port
from schemas.settings import Settings
from tests.api.serving import SETUP
from tests.api.shop import BUY, LAB, open_shop
from tests.api.test_kill import await_start
from tests.payments.holding import Holding, Moment, holding
from tests.stripe.running import RunningStripe, running_stripe

SESSIONS = "/v1/checkout/sessions"
CHILD = (
    "from api.options import ApiOptions, PaymentOptions; from api.server import run; "
    "from schemas.settings import Settings; run(Settings(), ApiOptions(), PaymentOptions())"
)


@contextmanager
def api(settings: Settings, port: int, stripe: RunningStripe, url: str) -> Iterator[int]:
    """The API as a process, which finds Stripe at `url`; yields its process id."""
    environment = os.environ | {
        "METERING_DATA_DIR": str(settings.data_dir),
        "METERING_LOG_LEVEL": "error",
        "METERING_API_PORT": str(port),
        "METERING_API_PUBLISH": "false",
        "METERING_STRIPE_API_KEY": stripe.api_key,
        "METERING_STRIPE_WEBHOOK_SECRET": stripe.webhook_secret,
        "METERING_STRIPE_API_BASE": url,
    }
    process = subprocess.Popen([sys.executable, "-c", CHILD], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
            await_start(client, process)
        yield process.pid
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture
def stripe() -> Iterator[RunningStripe]:
    with running_stripe(frozen=False) as running:
        yield running


@pytest.fixture
def held(stripe: RunningStripe) -> Iterator[Holding]:
    with holding(stripe.url, SESSIONS) as proxy:
        yield proxy


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_repeat_is_the_same_purchase_and_session(
    tmp_path: Path, stripe: RunningStripe, held: Holding, moment: Moment
) -> None:
    settings = Settings(data_dir=tmp_path, alias_secret=SecretStr("x" * 16))
    store = Store(database_url(settings))
    migrate(store)
    control = Control(store, lambda: datetime.now(UTC), b"x" * 16)
    with control.transaction(SETUP) as transaction:
        create_organization(transaction, "Acme", OrganizationSettings(), "org_a")
        secret = create_key(transaction, Scope.ADMIN, "test", "org_a").secret
    open_shop(control)
    port = free_port()

    def buy() -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{port}{LAB}/purchases",
            json=BUY,
            headers={"Idempotency-Key": "buy-1"},
            auth=(secret, ""),
            timeout=60,
        )

    def buy_and_be_cut_off() -> None:
        with pytest.raises(httpx.TransportError):
            buy()

    held.hold(moment)
    with api(settings, port, stripe, held.url) as process_id:
        buyer = threading.Thread(target=buy_and_be_cut_off)
        buyer.start()
        assert held.is_held.wait(60), "Stripe was not asked"
        os.kill(process_id, signal.SIGKILL)
        buyer.join(60)
    with store.read() as session:
        (row,) = session.scalars(select(Purchase)).all()
        assert (row.state, row.session_id) == ("created", None)
    held.let_go()
    with api(settings, port, stripe, stripe.url):
        bought, again = buy(), buy()
    store.close()
    assert bought.status_code == 201, bought.text
    assert bought.json() == again.json()
    assert bought.json()["purchase"]["id"] == row.id
    (made,) = stripe.control.all("checkout.session")
    assert made["metadata"]["metering_purchase"] == row.id
    assert bought.json()["checkout_url"] == made["url"]
