"""Credits that are bought while the pipeline is hurt: an API process and the stand-in for Stripe.

Both are killed too, between any two steps: while a purchase is being asked for, before its payment
is told, while its webhook is worked off. Nothing here knows how payments are settled: what was sold
is written down as the buyer was told it, what was paid is read from the stand-in's own objects, and
in the end the facts in the topic must grant exactly that. That the worker's pools follow from the
facts is what the rest of the verifier compares.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import httpx
from sqlalchemy import select

from api.rules.change import Actor, Control
from api.rules.keys import Scope
from api.rules.packages import PackageTerms, create_package
from api.seed import Seed, seed_organization
from api.storage.ledgers import OutboxFact
from api.storage.store import Store, database_url
from cli.control_plane import migrate_database
from cli.verification.differences import Differences
from cli.verification.pipeline import Pipeline, PipelineError, Process
from cli.verification.topic_contents import Contents
from deploy.embedded.ports import free_port
from deploy.embedded.stripe import EmbeddedStripe
from deploy.embedded.stripe.driving import StripeControl
from schemas import codec
from schemas.records import UNASSIGNED, Granted, Revoked
from schemas.topics import CREDITS

ORGANIZATION: Final = "org_shop"
POOLS: Final = (("group", "group_shop"), ("website", "web_shop"))
PACKAGE_ID: Final = "pkg_verify"
PACKAGE: Final = PackageTerms("verify", 250_000_003, 997, "USD", sold_monthly=True)
"""Credits and price without a common divisor: every rounding of a refund shows."""
QUANTITY: Final = 3
MONTH_S: Final = 32 * 86_400
KILL_WITHIN_S: Final = 0.3
PATIENCE_S: Final = 180.0
ASK_S: Final = 10.0
KINDS: Final = ("checkout.session", "invoice", "invoice_payment", "charge", "refund")

Pool = tuple[str, str]
Thing = dict[str, Any]


@dataclass
class Shop:
    """`open` it when the pipeline runs, `trade`, `settle` all, and `compare` at the end."""

    pipeline: Pipeline
    seed: int
    say: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    _sold: dict[str, Pool] = field(default_factory=dict)
    _granted: Counter[Pool] = field(default_factory=Counter)
    _pool_of: dict[str, Pool] = field(default_factory=dict)

    async def open(self) -> None:
        """The control plane with an organization, and who takes the money. Raises EngineError."""
        self._random = Random(f"{self.seed}:shop")  # noqa: S311 - no secrets
        self._stripe = EmbeddedStripe(self.pipeline.directory)
        await asyncio.to_thread(self._stripe.start)
        port = free_port()
        self._driver = StripeControl(self._stripe.url, self._stripe.token)
        self._url = f"http://127.0.0.1:{port}"
        key = await asyncio.to_thread(self._populate)
        self._client = httpx.AsyncClient(
            base_url=f"{self._url}/v1/organizations/{ORGANIZATION}",
            auth=(key, ""),
            timeout=ASK_S,
            trust_env=False,
        )
        await asyncio.to_thread(
            self._driver.webhooks_to, f"{self._url}/webhooks/stripe", self._stripe.webhook_secret
        )
        variables = {
            "METERING_API_PORT": str(port),
            "METERING_STRIPE_API_KEY": self._stripe.key,
            "METERING_STRIPE_WEBHOOK_SECRET": self._stripe.webhook_secret,
            "METERING_STRIPE_API_BASE": self._stripe.url,
        }
        self._environment = {**self.pipeline.sink.environment, **variables}
        self._api = Process(
            "api",
            [sys.executable, "-m", "cli", "api"],
            self._environment,
            self.pipeline.directory / "api.log",
        )
        self.pipeline.further.append(self._api)
        self._api.start()

    def _populate(self) -> str:
        settings = self.pipeline.settings
        migrate_database(settings)
        seed = Seed(
            ORGANIZATION,
            "Shop",
            groups={"group_shop": "Shop"},
            websites={"web_shop": ("Shop", UNASSIGNED)},
        )
        keys = seed_organization(settings, seed, datetime.now(UTC) - timedelta(minutes=1))
        assert keys is not None, "the verifier starts in an empty directory"
        store = Store(database_url(settings))
        try:
            control = Control(store, lambda: datetime.now(UTC), b"")
            with control.transaction(Actor("cli:verify", "api")) as transaction:
                create_package(transaction, PACKAGE, PACKAGE_ID)
        finally:
            store.close()
        return keys[Scope.ADMIN.value]

    async def trade(self, purchases: int) -> None:
        """Purchases, payments and refunds, then a month later the renewals; with kills between
        them and within them."""
        for pool in POOLS:
            await self._ask(f"/{pool[0]}s/{pool[1]}/billing", f"enable {pool[1]}", {})
        for number in range(purchases):
            await self._one_purchase(number)
        self._maybe_kill_stripe(1.0)
        await asyncio.to_thread(self._driver.advance, MONTH_S)
        await self._kill_api_soon(1.0)

    async def _one_purchase(self, number: int) -> None:
        pool, is_monthly = POOLS[number % 2], number % 3 == 0
        body = {
            "package_id": PACKAGE_ID,
            "kind": "monthly" if is_monthly else "one_time",
            "quantity": QUANTITY,
        }
        killing = self._kill_api_soon(0.4)
        bought = await self._ask(f"/{pool[0]}s/{pool[1]}/purchases", f"buy {number}", body)
        await killing
        self._sold[bought["purchase"]["id"]] = pool
        session = bought["checkout_url"].rpartition("/")[2]
        killing = self._kill_api_soon(0.4)
        await asyncio.to_thread(self._driver.pay, session)
        self._maybe_kill_stripe(0.2)
        await killing
        self.counts["purchases"] += 1
        if number % 3 == 1:
            await asyncio.to_thread(self._refund, session)

    def _refund(self, session: str) -> None:
        """A part, which is no whole package."""
        intent = self._driver.object(session)["payment_intent"]
        answer = httpx.post(
            f"{self._stripe.url}/v1/refunds",
            data={"payment_intent": intent, "amount": str(self._random.randint(1, 2_000))},
            auth=(self._stripe.key, ""),
            timeout=ASK_S,
            trust_env=False,
        )
        answer.raise_for_status()
        self.counts["refunds"] += 1

    async def _ask(self, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """As a buyer's program asks: again with the same key, until there is an answer."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            said = ""
            try:
                answer = await self._client.post(path, headers={"Idempotency-Key": key}, json=body)
                if answer.is_success:
                    found: dict[str, Any] = answer.json()
                    return found
                said = answer.text
                if answer.is_client_error:
                    raise PipelineError(f"the API refuses {path}: {said}")
            except httpx.TransportError as error:
                said = repr(error)
            if time.monotonic() > deadline:
                raise PipelineError(f"the API does not answer {path}: {said}")
            await asyncio.sleep(0.2)

    def _kill_api_soon(self, probability: float) -> Awaitable[None]:
        """`kill -9` at some moment of what follows; done when it runs again."""
        if self._random.random() >= probability:
            return asyncio.sleep(0)
        self.counts["api_kills"] += 1
        return asyncio.create_task(self._kill_api(self._random.uniform(0, KILL_WITHIN_S)))

    async def _kill_api(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.say("kill -9 API")
        self._api.kill()
        self._api.start()

    def _maybe_kill_stripe(self, probability: float) -> None:
        if self._random.random() < probability:
            self.counts["stripe_kills"] += 1
            self.say("kill -9 the stand-in for Stripe")
            self._stripe.kill()
            self._stripe.start()

    async def settle(self) -> None:
        """Returns when everything is reconciled and published. Raises PipelineError."""
        await asyncio.to_thread(self._reconcile)
        deadline = time.monotonic() + PATIENCE_S
        while await asyncio.to_thread(self._is_waiting):
            if time.monotonic() > deadline:
                raise PipelineError(f"facts of purchases were not published: {self._api.log}")
            await asyncio.sleep(0.2)

    def _reconcile(self) -> None:
        """As an operator does; what the API is at work on meanwhile is done once."""
        self.pipeline.run("credits", "reconcile", environment=self._environment)

    def _is_waiting(self) -> bool:
        store = Store(database_url(self.pipeline.settings))
        try:
            with store.read() as session:
                query = select(OutboxFact.id).where(OutboxFact.published_at.is_(None)).limit(1)
                return session.scalar(query) is not None
        finally:
            store.close()

    async def close(self) -> None:
        """The API ends; the stand-in stays, to be asked."""
        await self._api.stop()
        await self._client.aclose()

    def stop(self) -> None:
        if stripe := getattr(self, "_stripe", None):
            stripe.kill()

    # What was paid, and what was granted

    def take(self, contents: Contents, differences: Differences) -> None:
        """The facts of one partition: granted less revoked, by pool."""
        versions = set[int]()
        for record in contents.records[CREDITS]:
            if record.key != ORGANIZATION.encode():
                continue
            fact = codec.decode_credit(record.value)
            if fact.version in versions:
                continue
            versions.add(fact.version)
            self._add(fact.fact, differences)

    def _add(self, fact: object, differences: Differences) -> None:
        if isinstance(fact, Granted):
            if fact.grant_id in self._pool_of:
                differences.note_duplicated(f"{fact.grant_id} was granted twice")
            pool = fact.pool_kind, fact.pool_id
            self._pool_of[fact.grant_id] = pool
            self._granted[pool] += fact.amount_micro
        elif isinstance(fact, Revoked):
            self._granted[self._pool_of[fact.grant_id]] -= fact.amount_micro

    def compare(self, differences: Differences) -> None:
        """Money that lies in the stand-in against what the topic grants."""
        things = {kind: self._driver.all(kind) for kind in KINDS}
        paid = Counter[Pool]()
        for session in things["checkout.session"]:
            pool = self._sold.get(session["client_reference_id"])
            if pool is None:
                differences.note_wrong(f"session {session['id']} was never answered to anybody")
                continue
            for charges in _payments(things, session):
                paid[pool] += _credits(things, charges)
        for pool in POOLS:
            figures = f"{pool[1]}: {paid[pool]} micro-credits paid, {self._granted[pool]} granted"
            if self._granted[pool] < paid[pool]:
                differences.note_lost(figures)
            elif self._granted[pool] > paid[pool]:
                differences.note_duplicated(figures)
        self.counts["renewals"] = sum(
            invoice["status"] == "paid" and invoice["billing_reason"] == "subscription_cycle"
            for invoice in things["invoice"]
        )


def _payments(things: dict[str, list[Thing]], session: Thing) -> list[list[Thing]]:
    """The charges of each thing that was bought: once, or every month."""
    if not session["subscription"]:
        return [_charges(things, [session["payment_intent"]])]
    return [
        _charges(
            things,
            [
                payment["payment"]["payment_intent"]
                for payment in things["invoice_payment"]
                if payment["invoice"] == invoice["id"]
            ],
        )
        for invoice in things["invoice"]
        if _subscription(invoice) == session["subscription"] and invoice["status"] == "paid"
    ]


def _subscription(invoice: Thing) -> str | None:
    details = (invoice["parent"] or {}).get("subscription_details") or {}
    subscription: str | None = details.get("subscription")
    return subscription


def _charges(things: dict[str, list[Thing]], intents: list[str]) -> list[Thing]:
    return [
        charge
        for charge in things["charge"]
        if charge["payment_intent"] in intents and charge["status"] == "succeeded"
    ]


def _credits(things: dict[str, list[Thing]], charges: list[Thing]) -> int:
    """All but `floor(credits * refunded / paid)`."""
    bought = QUANTITY * PACKAGE.credits_micro
    paid = sum(charge["amount"] for charge in charges)
    ids = {charge["id"] for charge in charges}
    refunded = sum(each["amount"] for each in things["refund"] if each["charge"] in ids)
    return bought - bought * refunded // paid if paid else 0
