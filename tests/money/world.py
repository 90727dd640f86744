"""The control plane in this process, Stripe's stand-in beside it, and one clock for both.

Webhooks are delivered by the test: what Stripe has to tell waits in `events` until the test sends
it, in any order, again, or never. Nothing happens between two calls: the API's tasks are not
started, their work is asked for.
"""

import asyncio
import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import stripe
from fastapi import FastAPI
from pydantic import SecretStr

from api.app import create_app
from api.options import ApiOptions, PaymentOptions
from api.payments.reconcile import Report
from api.rules.change import Actor
from api.rules.keys import Scope, create_key
from api.rules.organizations import OrganizationSettings, create_organization
from api.storage.migrate import migrate
from api.storage.store import Store, database_url
from schemas.settings import Settings
from tests.money.crashes import Crashes, Killed
from tests.money.oracle import KINDS, Objects, Sale, Thing
from tests.stripe.running import RunningStripe, running_stripe

ORGANIZATION = "org_a"
POOLS = (("group", "group_one"), ("group", "group_two"), ("website", "web_one"))
PACKAGES = {
    # Credits and prices that have no common divisor: every rounding shows.
    "pkg_small": (1_000_007, 997),
    "pkg_large": (250_000_003, 2_500),
}
FIRST_DAY = datetime(2027, 1, 1, 9, tzinfo=UTC)
TRIES, PAUSE_S = 5, 900
SETUP = Actor("cli:tests", "api")
Result = TypeVar("Result")


@dataclass
class World:
    """To be entered; everything is gone when it is left."""

    stack: ExitStack = field(default_factory=ExitStack)
    now_s: int = 0
    crashes: Crashes = field(default_factory=Crashes)
    sales: dict[str, Sale] = field(default_factory=dict)
    events_read: int = 0
    _keys: Iterator[int] = field(default_factory=count)

    def __enter__(self) -> "World":
        with contextlib.ExitStack() as guarded:
            guarded.callback(self.stack.close)
            self._open()
            guarded.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _open(self) -> None:
        directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        self.crashes.install(patch)
        self.settings = Settings(
            kafka_bootstrap="127.0.0.1:9", data_dir=directory, alias_secret=SecretStr("x" * 16)
        )
        self.objects_file = directory / "stripe" / "stripe.sqlite"
        self.stripe: RunningStripe = self.stack.enter_context(
            running_stripe(directory=directory / "stripe")
        )
        self.driver = self.stripe.control
        self.driver.advance_to(int(FIRST_DAY.timestamp()))
        self.driver.dunning(retry_after_s=[86_400, 3 * 86_400])
        self.now_s = self.driver.now_s()
        self.dashboard = httpx.Client(
            base_url=self.stripe.url, auth=(self.stripe.api_key, ""), trust_env=False
        )
        self.stack.callback(self.dashboard.close)
        self.runner = self.stack.enter_context(asyncio.Runner())
        store = Store(database_url(self.settings))
        migrate(store)
        store.close()
        self.start_api()
        self.stack.callback(self.stop_api)
        self._populate()

    # The API process

    def start_api(self) -> None:
        self.crashes.next_life()
        options = PaymentOptions(
            api_key=SecretStr(self.stripe.api_key),
            webhook_secret=SecretStr(self.stripe.webhook_secret),
            api_base=self.stripe.url,
        )
        self.app: FastAPI = create_app(
            self.settings,
            ApiOptions(publish=False, rate_per_minute=100_000, failed_logins_per_minute=100_000),
            self.clock,
            payments=options,
        )
        self.api = self.app.state.api
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://api.test")

    def stop_api(self) -> None:
        """What a dead process leaves behind: nothing but its database."""
        self.crashes.life.is_dead = True
        self.run(self._close())
        self.api.store.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.client.aclose()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def converged(self) -> Report:
        """Once Stripe answers again, everything that is due is done and all is reconciled. What
        Stripe failed at is tried again later, since Stripe repeats a failure for a while."""
        self.driver.faults()
        for _ in range(TRIES):
            self.run(self.work_off())
            report = self.run(self.reconciled())
            if not report.failures:
                break
            self.advance(PAUSE_S)
        assert not report.failures, report
        return report

    def survived(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Whether the API lived through it; if not, the next one has been started."""
        with suppress(Killed):
            self.run(work)
        if not self.crashes.life.is_dead:
            self.crashes.life.arm(None)
            return True
        # A task of its own may have died of it, and nobody waited for that one.
        self.stop_api()
        self.start_api()
        return False

    def clock(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    def advance(self, seconds: int) -> None:
        self.driver.advance(seconds)
        self.now_s += seconds

    def _populate(self) -> None:
        with self.api.control.transaction(SETUP) as transaction:
            settings = OrganizationSettings()
            create_organization(transaction, "Acme", settings, ORGANIZATION)
            self.key = create_key(transaction, Scope.OPERATOR, "test", None).secret
        with self.api.control.change(ORGANIZATION, SETUP) as change:
            from api.rules.groups import create_group
            from api.rules.websites import create_website

            create_group(change, "One", "group_one")
            create_group(change, "Two", "group_two")
            create_website(change, "One", website_id="web_one")
        for name, (credits_micro, price_minor) in PACKAGES.items():
            answer = self.request(
                "POST",
                "/v1/packages",
                id=name,
                name=name,
                credits_micro=credits_micro,
                price_minor=price_minor,
                sold_one_time=True,
                sold_monthly=True,
            )
            assert answer.status_code == 201, answer.text
        for pool in POOLS:
            answer = self.request("POST", f"{self.path(pool)}/billing")
            assert answer.status_code == 201, answer.text

    # What people do through the API

    @staticmethod
    def path(pool: tuple[str, str]) -> str:
        return f"/v1/organizations/{ORGANIZATION}/{pool[0]}s/{pool[1]}"

    def request(self, method: str, path: str, key: str = "", **body: Any) -> httpx.Response:
        return self.run(self.asked(method, path, key, **body))

    async def asked(self, method: str, path: str, key: str = "", **body: Any) -> httpx.Response:
        return await self.client.request(
            method,
            path,
            headers={"Idempotency-Key": key} if key else {},
            auth=(self.key, ""),
            **({} if method == "GET" else {"json": body}),
        )

    def note_sales(self) -> None:
        """Whatever purchases there are now, by what the API says was sold."""
        for pool in POOLS:
            answer = self.request("GET", f"{self.path(pool)}/purchases")
            for each in answer.json()["items"] if answer.status_code == 200 else ():
                if each["id"] not in self.sales:
                    credits_micro, price_minor = PACKAGES[each["package_id"]]
                    self.sales[each["id"]] = Sale(
                        each["id"],
                        ORGANIZATION,
                        pool,
                        each["kind"] == "monthly",
                        each["quantity"],
                        credits_micro,
                        price_minor,
                    )

    # What Stripe's dashboard does

    def in_dashboard(self, method: str, path: str, **form: Any) -> httpx.Response:
        return self.dashboard.request(method, f"/v1/{path}", data=form or None)

    # What lies in Stripe

    def objects(self, *kinds: str) -> Objects:
        found: dict[str, list[Thing]] = {kind: [] for kind in kinds or KINDS}
        with contextlib.closing(sqlite3.connect(self.objects_file)) as sql:
            for kind, body in sql.execute("SELECT kind, body FROM objects ORDER BY position"):
                if kind in found:
                    found[kind].append(json.loads(body))
        return Objects(found)

    def new_events(self) -> list[Thing]:
        """What was not handed out before, oldest first."""
        events = self.objects("event").all("event")
        new, self.events_read = events[self.events_read :], len(events)
        return new

    # Webhooks and the work behind them

    def signed(self, body: bytes, *, secret: str = "", at_s: int | None = None) -> str:
        return stripe.WebhookSignature.generate_signature_header(
            body.decode(), secret or self.stripe.webhook_secret, timestamp=at_s or self.now_s
        )

    async def send(self, body: bytes, signature: str) -> httpx.Response:
        return await self.client.post(
            "/webhooks/stripe", content=body, headers={"Stripe-Signature": signature}
        )

    async def deliver(self, event: Thing) -> None:
        body = json.dumps(event).encode()
        answer = await self.send(body, self.signed(body))
        assert answer.status_code == 200, answer.text

    async def work_off(self) -> None:
        await self.api.desk.inbox.work_off()

    async def reconciled(self) -> Report:
        (reconciliation,) = self.api.desk.reconciliations
        return await reconciliation.run()

    async def renewed(self) -> None:
        (renewals,) = [each for each in self.api.desk.inbox.chores if each.name == "renewals"]
        await renewals.work()
