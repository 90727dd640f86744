"""`kill -9` of the API between any two steps of a purchase by a partner, and of the partner."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from api.rules.billing_profiles import enable_billing
from api.rules.change import Control
from api.rules.groups import create_group
from api.rules.keys import Scope, create_key
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.packages import PackageTerms, create_package
from api.storage.ledgers import Grant
from api.storage.migrate import migrate
from api.storage.purchases import ProviderEvent, Purchase
from api.storage.store import Store, database_url
from deploy.embedded.partner import EmbeddedPartner
from deploy.embedded.ports import free_port
from schemas.settings import Settings
from tests.api.serving import SETUP

CHILD = "from api.server import run; from schemas.settings import Settings; run(Settings())"
PATIENCE_S = 60.0


@dataclass
class Site:
    """An API process that can be killed, and a reference partner that can be killed, too."""

    directory: Path
    port: int = field(default_factory=free_port)
    api: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        where = f"http://127.0.0.1:{self.port}"
        self.partner = EmbeddedPartner(
            self.directory, webhook_url=f"{where}/webhooks/partners/reference"
        )
        file = self.directory / "partners.toml"
        file.write_text(self.partner.partners_toml(["org_a"]) + "timeout_s = 1\n")
        self.settings = Settings(data_dir=self.directory, partners_file=file)
        self.store = Store(database_url(self.settings))
        migrate(self.store)
        control = Control(self.store, lambda: datetime.now(UTC), b"x" * 16)
        with control.transaction(SETUP) as transaction:
            create_organization(transaction, "Acme", OrganizationSettings(), "org_a")
            terms = PackageTerms("1,000 credits", 1_000_000_000, 1_000, "USD", True, True)
            create_package(transaction, terms, "pkg")
            change = transaction.change("org_a")
            create_group(change, "Lab", "lab")
            enable_billing(change, "group", "lab", "partner:reference")
            secret = create_key(transaction, Scope.ADMIN, "test", "org_a").secret
        self.client = httpx.Client(base_url=where, auth=(secret, ""), timeout=30)

    def start(self) -> None:
        environment = os.environ | {
            "METERING_DATA_DIR": str(self.directory),
            "METERING_PARTNERS_FILE": str(self.settings.partners_file),
            "METERING_API_PORT": str(self.port),
            "METERING_API_PUBLISH": "false",
            "METERING_LOG_LEVEL": "error",
        }
        self.api = subprocess.Popen([sys.executable, "-c", CHILD], env=environment)
        self.until(self._answers)

    def _answers(self) -> bool:
        assert self.api is not None
        assert self.api.poll() is None
        try:
            return self.client.get("/health/live").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        assert self.api is not None
        self.api.send_signal(signal.SIGKILL)
        self.api.wait(10)

    def close(self) -> None:
        if self.api is not None and self.api.poll() is None:
            self.kill()
        self.partner.stop()
        self.client.close()
        self.store.close()

    def buy(self) -> httpx.Response | None:
        """None where nobody answered."""
        order = {"package_id": "pkg", "kind": "one_time", "quantity": 2}
        try:
            return self.client.post(
                "/v1/organizations/org_a/groups/lab/purchases",
                json=order,
                headers={"Idempotency-Key": "buy-1"},
            )
        except httpx.TransportError:
            return None

    def charges(self) -> list[dict[str, Any]]:
        return list(self.partner.control("state")["charges"])

    def rows(self, model: type[Any]) -> list[Any]:
        with self.store.read() as session:
            return list(session.scalars(select(model)))

    def look_now(self) -> None:
        """As if the time of the next look had come."""
        with self.store.write() as session:
            session.execute(update(Purchase).values(look_at=datetime.now(UTC)))

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, "it does not happen"
            time.sleep(0.05)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path)
    try:
        opened.partner.start()
        yield opened
    finally:
        opened.close()


def test_killed_when_the_charge_is_made_and_nothing_of_it_is_known_here(site: Site) -> None:
    site.start()
    site.partner.control("next", {"fault": "silent_after", "times": 9})
    buying = threading.Thread(target=site.buy)
    buying.start()
    site.until(lambda: len(site.charges()) == 1)
    site.kill()
    buying.join()
    (purchase,) = site.rows(Purchase)
    assert (purchase.state, purchase.session_id) == ("awaiting_payment", None)
    assert site.rows(Grant) == []
    site.look_now()
    site.start()
    site.until(lambda: len(site.rows(Grant)) == 1)
    (charge,) = site.charges()
    assert site.rows(Grant)[0].id == f"partner:reference:{charge['charge_id']}"
    again = site.buy()
    assert again is not None
    assert again.json()["status"] == "succeeded"
    assert len(site.rows(Purchase)) == len(site.charges()) == 1


def test_killed_when_a_webhook_is_stored_and_not_yet_settled(site: Site) -> None:
    site.start()
    bought = site.buy()
    assert bought is not None
    assert bought.json()["status"] == "succeeded"
    (charge,) = site.charges()
    site.partner.control("away", {"away": True})
    site.partner.control(f"charges/{charge['charge_id']}/refund", {})
    site.until(lambda: len(site.rows(ProviderEvent)) == 1)
    site.kill()
    (event,) = site.rows(ProviderEvent)
    assert event.processed_at is None
    assert site.rows(Grant)[0].revoked_micro == 0
    site.partner.control("away", {"away": False})
    site.start()
    site.until(lambda: site.rows(Grant)[0].revoked_micro == 2_000_000_000)
    site.until(lambda: site.rows(ProviderEvent)[0].processed_at is not None)


def test_killed_partners_come_back_with_what_they_knew(site: Site) -> None:
    site.start()
    site.partner.control("next", {"outcome": "pending"})
    bought = site.buy()
    assert bought is not None
    assert bought.json()["status"] == "pending"
    (charge,) = site.charges()
    site.kill()
    # Nobody takes the webhook, and then nobody sends it.
    site.partner.control(f"charges/{charge['charge_id']}/succeed", {})
    site.partner.kill()
    site.partner.start()
    assert site.charges()[0]["status"] == "succeeded"
    site.start()
    site.until(lambda: len(site.rows(Grant)) == 1)
