"""An API that sells by a reference partner: both over real HTTP, on one SQLite database."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import delete, inspect, select, update

from api.payments.reconcile import Report
from api.rules.groups import create_group
from api.rules.packages import PackageTerms, create_package
from api.storage.ledgers import Grant, IdempotencyKey, OutboxFact
from api.storage.purchases import (
    BoughtGrant,
    Invoice,
    ProviderCursor,
    ProviderEvent,
    Purchase,
    Subscription,
    Unmatched,
)
from deploy.embedded.partner.app import BASE
from schemas.settings import Settings
from tests.api.conftest import ADMIN
from tests.api.serving import Served, serving
from tests.partners.conftest import Reference, partner_toml

CREDITS_MICRO = 1_000_000_000
PRICE_MINOR = 1_000
PATIENCE_S = 60.0
SHORT_S = 1
ORGANIZATION = "org_a"
PARTNER = "partner:reference"


@dataclass
class Shop:
    """`org_a` has the group `lab`, which buys the package `pkg` by the reference partner."""

    served: Served
    reference: Reference
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        with self.served.control.transaction(ADMIN) as transaction:
            terms = PackageTerms("1,000 credits", CREDITS_MICRO, PRICE_MINOR, "USD", True, True)
            create_package(transaction, terms, "pkg")
            create_group(transaction.change(ORGANIZATION), "Lab", "lab")
        self.client = self.served.client("admin")
        self.hear()
        enabled = self.post("billing", {})
        assert enabled.json()["provider"] == PARTNER, enabled.text

    def hear(self) -> None:
        self.reference.control("webhooks", mode="deliver", url=self.webhook_url)

    def forge(self, kind: str, purchase_id: str, charge_id: str) -> None:
        """A webhook that the partner signs and that is not true."""
        data = {"purchase_id": purchase_id, "organization_id": ORGANIZATION, "charge_id": charge_id}
        assert self.reference.control("webhooks/forge", type=kind, data=data)["status"] == 200

    def forget(self) -> None:
        """As if nothing had been bought yet, here and at the partner."""
        self.reference.control("reset")
        inbox = self.served.app.state.api.desk.inbox
        with self.served.control.store.write() as session:
            session.execute(update(Purchase).values(look_at=None))
            session.execute(delete(ProviderEvent))
        self.until(lambda: not inbox.is_busy)
        with self.served.control.store.write() as session:
            for table in (BoughtGrant, Invoice, Subscription, Unmatched, Grant, Purchase):
                session.execute(delete(table))
            for table in (ProviderEvent, ProviderCursor, OutboxFact, IdempotencyKey):
                session.execute(delete(table))
        self.hear()

    @property
    def webhook_url(self) -> str:
        return f"{self.served.url}/webhooks/partners/reference"

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        where = f"/v1/organizations/{ORGANIZATION}/groups/lab/{path}"
        return self.client.post(where, json=body, headers=headers)

    def get(self, path: str) -> Any:
        answer = self.client.get(f"/v1/organizations/{ORGANIZATION}/groups/lab/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def buy(self, kind: str = "one_time", quantity: int = 3, **headers: str) -> httpx.Response:
        order = {"package_id": "pkg", "kind": kind, "quantity": quantity}
        return self.post("purchases", order, **headers)

    def bought(self, kind: str = "one_time", quantity: int = 3) -> str:
        """A purchase that succeeded; its id."""
        answer = self.buy(kind, quantity)
        assert answer.status_code == 201, answer.text
        assert answer.json()["status"] == "succeeded"
        return str(answer.json()["purchase"]["id"])

    # ---- what the database holds

    def rows(self, model: type[Any]) -> list[Any]:
        with self.served.control.store.read() as session:
            return list(session.scalars(select(model)))

    def purchase(self) -> Purchase:
        (only,) = self.rows(Purchase)
        assert isinstance(only, Purchase)
        return only

    def subscription(self) -> Subscription:
        (only,) = self.rows(Subscription)
        assert isinstance(only, Subscription)
        return only

    def grants(self) -> dict[str, tuple[int, int]]:
        """Of each charge that was granted for, the credits granted and those not revoked."""
        return {
            grant.id.removeprefix(f"{PARTNER}:"): (
                grant.amount_micro,
                grant.amount_micro - grant.revoked_micro,
            )
            for grant in self.rows(Grant)
        }

    def left(self) -> int:
        """Packages' worth of credits that were granted and not revoked, in micro-credits."""
        return sum(left for _, left in self.grants().values())

    def unmatched(self) -> list[Unmatched]:
        return self.rows(Unmatched)

    def charges(self) -> list[dict[str, Any]]:
        return list(self.reference.state()["charges"])

    # ---- what is waited for

    def until(self, holds: Callable[[], bool]) -> None:
        """Waits for what happens in the background."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, "it does not happen"
            time.sleep(0.02)

    def until_worked_off(self) -> None:
        """Every webhook was delivered, and what it is about was looked at."""

        def is_done() -> bool:
            sent = self.reference.state()["webhooks"]
            is_sent = all(hook["done"] or hook["held"] for hook in sent)
            events = self.rows(ProviderEvent)
            return is_sent and all(event.processed_at is not None for event in events)

        self.until(is_done)

    def reconcile(self) -> Report:
        """As each night, in the API's own loop."""
        desk = self.served.app.state.api.desk
        (reconciliation,) = desk.reconciliations
        running = asyncio.run_coroutine_threadsafe(reconciliation.run(), desk.inbox.loop)
        report: Report = running.result(PATIENCE_S)
        return report

    def picture(self) -> list[Any]:
        """All that a webhook can change, as it is kept; no time of ours in it."""
        tables = (Purchase, Subscription, Invoice, Grant)
        without = {"revision", "look_at", "looks_failed", "created_at", "updated_at"}
        without |= {"effective_at"}
        return [
            {c.key: getattr(row, c.key) for c in model.__table__.columns if c.key not in without}
            for model in tables
            for row in sorted(self.rows(model), key=lambda row: str(inspect(row).identity))
        ]

    def look_now(self) -> None:
        """As if the time of the next look had come."""
        with self.served.control.store.write() as session:
            session.execute(update(Purchase).values(look_at=datetime.now(UTC)))
        self.served.app.state.api.desk.inbox.wake()


@contextmanager
def open_shop(
    reference: Reference, tmp_path: Path, migrated: Path, timeout_s: float = SHORT_S
) -> Iterator[Shop]:
    """Buyers wait for the partner as long as `timeout_s` an attempt."""
    file = tmp_path / "partners.toml"
    file.write_text(partner_toml(reference.url + BASE, reference.keys, timeout_s=timeout_s))
    settings = Settings(data_dir=tmp_path / "metering", partners_file=file)
    settings.data_dir.mkdir()
    shutil.copy(migrated, settings.data_dir / "control-plane.sqlite")
    with serving(settings) as served:
        shop = Shop(served, reference)
        try:
            yield shop
        finally:
            shop.client.close()
