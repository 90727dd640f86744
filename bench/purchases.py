"""`python -m bench.purchases`: how soon credits that were bought can be spent (target: p95 2 s).

For each purchase a group without credits buys packages and pays at the stand-in for Stripe, while a
member of it goes on using. The delay begins before Stripe is told of the payment, so the webhook's
way is part of it, and ends when the first usage event was sent that the bought credits paid for:
webhook, store, look at Stripe, settlement, outbox, Kafka, worker. Real Kafka, worker and API, each
a process. Checked: every purchase is paid, and what events took equals what they cost.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from api.rules.change import Actor, Control
from api.rules.packages import PackageTerms, create_package
from api.storage.store import Store, database_url
from bench.api import ORGANIZATION, Place, figures, running
from bench.engines import PipelineProcess
from bench.machine import describe_machine
from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from deploy.embedded.stripe import EmbeddedStripe
from deploy.embedded.stripe.driving import StripeControl
from schemas import topics
from schemas.records import MICRO
from streams.kafka import client_options

PACKAGE: Final = PackageTerms("1,000 credits", 1_000 * MICRO, 1_000, "USD")
PACKAGE_ID: Final = "pkg_1000"
QUANTITY: Final = 2
EVENT_EVERY_S: Final = 0.01
PATIENCE_S: Final = 60.0
TARGET_P95_MS: Final = 2_000


class Rated(msgspec.Struct):
    """What of a rated row is looked at."""

    event_id: str
    cost_micro: int
    group_debit_micro: int
    overage_micro: int


_decode_rated = msgspec.json.Decoder(Rated).decode


@dataclass
class Usage:
    """Events of one purchase's group, and what became of them."""

    sent_s: dict[str, float] = field(default_factory=dict)
    rated: dict[str, Rated] = field(default_factory=dict)
    paid: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, row: Rated) -> None:
        self.rated[row.event_id] = row
        if row.group_debit_micro:
            self.paid.set()

    @property
    def spendable_s(self) -> float:
        """When the first event was sent that credits paid for."""
        return min(
            self.sent_s[row.event_id] for row in self.rated.values() if row.group_debit_micro
        )

    def check(self) -> None:
        assert len(self.rated) == len(self.sent_s), "usage was lost"
        for row in self.rated.values():
            assert row.cost_micro == row.group_debit_micro + row.overage_micro == MICRO


@contextmanager
def shop(
    kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse, directory: Path, purchases: int
) -> Iterator[tuple[Place, StripeControl]]:
    """The control plane with a group for each purchase and one package, and who takes the money."""
    stripe = EmbeddedStripe(directory)
    stripe.start()
    control = StripeControl(stripe.url, stripe.token)
    payments = {
        "stripe_api_key": stripe.key,
        "stripe_webhook_secret": stripe.webhook_secret,
        "stripe_api_base": stripe.url,
    }
    try:
        sizes = {"groups": purchases, "members": purchases}
        with running(
            kafka, clickhouse, directory, name="benchbuy", payments=payments, **sizes
        ) as place:
            control.webhooks_to(f"{place.url}/webhooks/stripe", stripe.webhook_secret)
            _sell(place)
            yield place, control
    finally:
        control.close()
        stripe.stop()


def _sell(place: Place) -> None:
    store = Store(database_url(place.settings))
    try:
        control = Control(store, lambda: datetime.now(UTC), b"")
        with control.transaction(Actor("cli:bench", "api")) as transaction:
            create_package(transaction, PACKAGE, PACKAGE_ID)
    finally:
        store.close()


async def measure(place: Place, stripe: StripeControl, purchases: int) -> list[float]:
    """Milliseconds from each payment to the first event that its credits paid for."""
    consumer = AIOKafkaConsumer(
        place.settings.topic(topics.USAGE_RATED),
        **client_options(place.settings),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    producer = AIOKafkaProducer(**client_options(place.settings), acks="all", linger_ms=0)
    await consumer.start()
    await producer.start()
    usages = [Usage() for _ in range(purchases)]
    reading = asyncio.create_task(_read(consumer, usages))
    delays_ms = []
    try:
        async with place.client() as client:
            for number, usage in enumerate(usages):
                bought = await _buy(client, number)
                using = asyncio.create_task(_use(producer, place, number, usage))
                begun_s = time.perf_counter()
                await asyncio.to_thread(stripe.pay, bought["checkout_url"].rpartition("/")[2])
                await asyncio.wait_for(usage.paid.wait(), PATIENCE_S)
                await using
                await _all_rated(usage)
                usage.check()
                await _check_paid(client, number, bought["purchase"]["id"])
                delays_ms.append((usage.spendable_s - begun_s) * 1000)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await producer.stop()
        await consumer.stop()
    return delays_ms


def _path(number: int) -> str:
    return f"/v1/organizations/{ORGANIZATION}/groups/group_{number}"


async def _buy(client: httpx.AsyncClient, number: int) -> dict[str, Any]:
    enabled = await client.post(f"{_path(number)}/billing", json={})
    assert enabled.status_code == 201, enabled.text
    body = {"package_id": PACKAGE_ID, "kind": "one_time", "quantity": QUANTITY}
    answer = await client.post(f"{_path(number)}/purchases", json=body)
    assert answer.status_code == 201, answer.text
    bought: dict[str, Any] = answer.json()
    return bought


async def _check_paid(client: httpx.AsyncClient, number: int, purchase_id: str) -> None:
    answer = await client.get(f"{_path(number)}/purchases/{purchase_id}")
    purchase = answer.json()
    assert purchase["state"] == "paid", answer.text
    assert purchase["credits_micro"] == QUANTITY * PACKAGE.credits_micro


async def _use(producer: Any, place: Place, number: int, usage: Usage) -> None:
    """One credit after the other, until the bought ones pay."""
    topic, futures = place.settings.topic(topics.USAGE), []
    while not usage.paid.is_set():
        event_id = f"{number}-{len(usage.sent_s)}"
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": "bench",
            "type": "ai.tokens",
            "subject": f"user_{number}",
            "data": {"quantity": 1_000_000},
        }
        usage.sent_s[event_id] = time.perf_counter()
        futures.append(
            await producer.send(topic, msgspec.json.encode(event), key=ORGANIZATION.encode())
        )
        await asyncio.sleep(EVENT_EVERY_S)
    await asyncio.gather(*futures)


async def _read(consumer: Any, usages: list[Usage]) -> None:
    while True:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                rated = _decode_rated(record.value)
                usages[int(rated.event_id.partition("-")[0])].add(rated)


async def _all_rated(usage: Usage) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(usage.rated) < len(usage.sent_s):  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(EVENT_EVERY_S)


def run(
    kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse, directory: Path, purchases: int
) -> list[float]:
    """`measure` with everything that it takes."""
    with shop(kafka, clickhouse, directory, purchases) as (place, stripe):
        port = int(place.values["metrics_port"])
        worker = PipelineProcess("worker", place.values, port, directory / "worker.out")

        async def with_worker() -> list[float]:
            await worker.start()
            try:
                await worker.ready()
                return await measure(place, stripe, purchases)
            finally:
                await worker.stop()

        return asyncio.run(with_worker())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.purchases", description=__doc__)
    parser.add_argument("--purchases", type=int, default=100)
    chosen = parser.parse_args(argv)
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="metering-bench-purchases-") as name:
        directory = Path(name)
        kafka, clickhouse = EmbeddedKafka(directory), EmbeddedClickHouse(directory)
        kafka.start()
        clickhouse.start()
        try:
            delays_ms = run(kafka, clickhouse, directory, chosen.purchases)
        finally:
            clickhouse.stop()
            kafka.stop()
    measured = figures("payment_to_spendable", delays_ms)
    is_met = measured["payment_to_spendable_p95_ms"] <= TARGET_P95_MS
    print(f"target p95 {TARGET_P95_MS} ms: {'met' if is_met else 'MISSED'}", file=sys.stderr)
    print(json.dumps({"purchases": chosen.purchases, **measured, "machine": machine}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
