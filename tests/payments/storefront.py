"""The API as it is served, paid by the stand-in for Stripe, on one clock that tests move."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr
from sqlalchemy import func, select

from api.options import PaymentOptions
from api.payments.desk import Desk, make_desk
from api.payments.inbox import Chore
from api.payments.partners.file import Partners
from api.payments.reconcile import Report
from api.storage.ledgers import Grant, OutboxFact
from api.storage.migrate import migrate
from api.storage.purchases import ProviderEvent, Purchase, Subscription, Unmatched
from api.storage.store import Store
from schemas.settings import Settings
from tests.api.serving import Served, serving
from tests.stripe.running import RunningStripe, running_stripe

Result = TypeVar("Result")
DATABASE = "control-plane.sqlite"
DAY_S = 86_400
PATIENCE_S = 60.0
PACKAGE = {
    "id": "pkg_1000",
    "name": "1,000 credits",
    "credits_micro": 1_000_000_000,
    "price_minor": 1_000,
    "currency": "USD",
    "sold_one_time": True,
    "sold_monthly": True,
}
CREDITS = 1_000_000_000


@dataclass
class SharedClock:
    """The API's time: the stand-in's, which stands still until it is moved."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Storefront:
    """A group `group_a` of `org_a` with billing enabled, and one package for sale."""

    served: Served
    stripe: RunningStripe
    clock: SharedClock
    admin: httpx.Client
    operator: httpx.Client
    chores: list[Chore]
    options: PaymentOptions

    @property
    def store(self) -> Store:
        store: Store = self.served.app.state.api.store
        return store

    @property
    def desk(self) -> Desk:
        desk: Desk = self.served.app.state.api.desk
        return desk

    def advance(self, seconds: int) -> None:
        """Moves both clocks; what Stripe does on the way is delivered and worked off."""
        self.stripe.control.advance(seconds)
        self.follow()

    def follow(self) -> None:
        """Our clock is Stripe's again, and everything that it told is worked off."""
        self.clock.now = datetime.fromtimestamp(self.stripe.control.now_s(), UTC)
        self.deliver()

    def deliver(self) -> None:
        """Every webhook that is on its way arrives, and everything that is due is worked off."""
        self.stripe.control.flush()
        self.until(self.is_idle)

    def until(self, condition: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up_s, self.waiting()
            time.sleep(0.04)

    def is_idle(self) -> bool:
        return self.waiting() == [] and not self.desk.inbox.is_busy

    def waiting(self) -> list[str]:
        now = self.clock()
        with self.store.read() as session:
            events = session.scalars(
                select(ProviderEvent).where(
                    ProviderEvent.processed_at.is_(None), ProviderEvent.next_attempt_at <= now
                )
            ).all()
            due = session.scalars(select(Purchase).where(Purchase.look_at <= now)).all()
        return [f"{event.type} {event.problem}" for event in events] + [row.id for row in due]

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Does it on the loop of the server."""
        loop = self.desk.inbox.loop
        assert loop is not None
        return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE_S)

    def chore(self, name: str) -> Any:
        """What the inbox's process does by itself now and then, done now."""
        (work,) = (chore.work for chore in self.chores if chore.name == name)

        async def do() -> Any:
            return await work()

        return self.run(do())

    def reconcile(self, since: datetime | None = None) -> Report:
        (reconciliation,) = self.desk.reconciliations
        return self.run(reconciliation.run(since))

    def rehearse(self) -> Report:
        """What reconciliation would do, by a process of its own."""

        async def work() -> Report:
            desk = make_desk(
                self.served.control, self.options, self.served.url, Partners({}), is_rehearsal=True
            )
            try:
                return await desk.reconciliations[0].run()
            finally:
                await desk.stop()

        return asyncio.run(work())

    def post(self, path: str, status: int = 201, **body: Any) -> dict[str, Any]:
        answer = self.admin.post(f"/v1/organizations/org_a/groups/group_a/{path}", json=body)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def buy(self, kind: str = "one_time", quantity: int = 2) -> dict[str, Any]:
        """A purchase whose checkout is open."""
        bought = self.post("purchases", package_id="pkg_1000", kind=kind, quantity=quantity)
        assert bought["status"] == "redirect"
        assert bought["checkout_url"].startswith(self.stripe.url)
        purchase: dict[str, Any] = bought["purchase"]
        return purchase

    def pay(self, purchase_id: str, outcome: str = "succeeded") -> None:
        self.stripe.control.pay(self.session_id(purchase_id), outcome)
        self.deliver()

    def subscribe(self, quantity: int = 1) -> str:
        """A monthly purchase that is paid."""
        purchase_id: str = self.buy("monthly", quantity)["id"]
        self.pay(purchase_id)
        return purchase_id

    def purchase(self, purchase_id: str) -> Purchase:
        with self.store.read() as session:
            return session.get_one(Purchase, ("org_a", purchase_id))

    def session_id(self, purchase_id: str) -> str:
        session_id = self.purchase(purchase_id).session_id
        assert session_id is not None
        return session_id

    def subscription(self, purchase_id: str) -> Subscription:
        with self.store.read() as session:
            return session.get_one(Subscription, ("org_a", purchase_id))

    def grants(self) -> dict[str, tuple[int, bool]]:
        """Of each grant what is not revoked, and whether it awaits payment."""
        with self.store.read() as session:
            query = select(Grant).where(Grant.organization_id == "org_a")
            rows = session.scalars(query.order_by(Grant.effective_at, Grant.id))
            return {
                row.id: (row.amount_micro - row.revoked_micro, row.awaiting_payment) for row in rows
            }

    def credits(self) -> int:
        """What was granted and not revoked, in packages."""
        micro = sum(left for left, _ in self.grants().values())
        assert micro % CREDITS == 0
        return micro // CREDITS

    def unmatched(self) -> list[tuple[str, str]]:
        with self.store.read() as session:
            rows = session.scalars(select(Unmatched).order_by(Unmatched.object_id))
            return [(row.object_kind, row.code) for row in rows]

    def facts(self) -> int:
        """Facts about credits that go to Kafka."""
        with self.store.read() as session:
            return (
                session.scalar(
                    select(func.count())
                    .select_from(OutboxFact)
                    .where(OutboxFact.topic == "credits")
                )
                or 0
            )


@contextmanager
def storefront(
    data_dir: Path,
    stripe_options: dict[str, Any] | None = None,
    api_options: dict[str, Any] | None = None,
    **payment_options: Any,
) -> Iterator[Storefront]:
    """Serves it on SQLite. `payment_options` are fields of `PaymentOptions`."""
    with ExitStack() as stack:
        # Webhooks go out once both clocks stand at the same time: `deliver`.
        stripe = stack.enter_context(running_stripe(**{"paused": True, **(stripe_options or {})}))
        options = PaymentOptions(
            **{
                "api_key": SecretStr(stripe.api_key),
                "webhook_secret": SecretStr(stripe.webhook_secret),
                "api_base": stripe.url,
                **payment_options,
            }
        )
        clock = SharedClock(datetime.fromtimestamp(stripe.control.now_s(), UTC))
        settings = Settings(data_dir=data_dir)
        data_dir.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(_migrated().name) / DATABASE, data_dir / DATABASE)
        served = stack.enter_context(serving(settings, clock, options, **(api_options or {})))
        inbox = served.app.state.api.desk.inbox
        chores, inbox.chores = inbox.chores, []
        stripe.control.webhooks_to(f"{served.url}/webhooks/stripe", stripe.webhook_secret)
        operator = stack.enter_context(served.client("operator"))
        admin = stack.enter_context(served.client("admin"))
        _post(operator, "/v1/packages", PACKAGE)
        group = {"id": "group_a", "name": "Group A"}
        _post(admin, "/v1/organizations/org_a/groups", group)
        _post(admin, "/v1/organizations/org_a/groups/group_a/billing", {})
        yield Storefront(served, stripe, clock, admin, operator, chores, options)


@cache
def _migrated() -> tempfile.TemporaryDirectory[str]:
    """With a migrated database to copy: migrating takes longer than most of these tests."""
    directory = tempfile.TemporaryDirectory()
    store = Store(f"sqlite:///{Path(directory.name) / DATABASE}")
    migrate(store)
    store.close()
    return directory


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, json=body)
    assert answer.is_success, answer.text


def month(front: Storefront, purchase_id: str) -> int:
    """Seconds from now until the period of a subscription ends."""
    end = front.subscription(purchase_id).current_period_end
    assert end is not None
    return int((end - front.clock()) / timedelta(seconds=1))
