"""`python -m bench.api`: how quickly the control plane answers, and how soon the pipeline obeys it.

Figures, each with a check of what was answered. *Groups table*: an organization with 200 groups,
20,000 members and usage by each; the table's answer time over HTTP (target: p95 100 ms). *Groups
with people*, *members*, *spend by member*: the same of `/teams/groups` (3 MB, since Cursor's shape
nests every member), `/teams/members` and `/teams/spend`. *Change to stamp*: after a move is
acknowledged, usage is sent every few milliseconds; the delay ends with the last event that still
bears the former group (target: p99 250 ms on an idle machine).
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from sqlalchemy import select

from api.rules.keys import Scope
from api.rules.members import NewMember
from api.rules.prices import NewPrice
from api.seed import Seed, seed_organization
from api.storage.ledgers import DimensionChange, OutboxFact
from api.storage.migrate import migrate
from api.storage.store import Store, database_url
from bench.engines import PipelineProcess, environment
from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from deploy.embedded.child import ChildProcess
from deploy.embedded.ports import free_port
from schemas import topics
from schemas.records import MICRO
from schemas.settings import Settings
from streams.kafka import client_options, create_topics
from warehouse.connection import connect
from warehouse.migrations import migrate as migrate_warehouse

ORGANIZATION: Final = "org_bench"
CHILD: Final = "from api.server import run; from schemas.settings import Settings; run(Settings())"
EVENT_EVERY_S: Final = 0.005
WATCHED_S: Final = 0.4
WARM_UP_REQUESTS: Final = 5
COST_LEAST_MICRO: Final = 1_000
START_S: Final = 60.0
DRAIN_S: Final = 30.0


class Rated(msgspec.Struct):
    """What of a rated row is looked at."""

    event_id: str
    stamped_group_id: str


_decode_rated = msgspec.json.Decoder(Rated).decode


@dataclass
class Place:
    """A running control plane."""

    settings: Settings
    values: dict[str, Any]
    url: str
    secret: str

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, auth=(self.secret, ""), timeout=30)


@contextmanager
def running(
    kafka: EmbeddedKafka,
    clickhouse: EmbeddedClickHouse,
    directory: Path,
    *,
    groups: int,
    members: int,
    name: str = "benchapi",
    payments: Mapping[str, str] | None = None,
) -> Iterator[Place]:
    """An API process on these engines, with a seeded organization; its topics are created.

    `payments` are its settings of Stripe, by the names of their variables in small letters.
    """
    port = free_port()
    values: dict[str, Any] = {
        "app_id": name,
        "topic_prefix": f"{name}.",
        "kafka_bootstrap": kafka.bootstrap,
        "clickhouse_url": clickhouse.url,
        "clickhouse_user": clickhouse.writer.name,
        "clickhouse_password": clickhouse.writer.password,
        "clickhouse_database": name,
        "data_dir": directory,
        "partitions": 4,
        "metrics_port": free_port(),
        "api_port": port,
        "api_rate_per_minute": 1_000_000,
        "log_level": "error",
        **(payments or {}),
    }
    others = ("api_", "stripe_")
    settings = Settings(**{key: one for key, one in values.items() if not key.startswith(others)})
    asyncio.run(create_topics(settings))
    migrate_warehouse(settings)
    store = Store(database_url(settings))
    migrate(store)
    store.close()
    secrets = seed_organization(settings, seed(groups, members), long_ago())
    assert secrets is not None, "the benchmark starts on an empty directory"
    child = ChildProcess("api", directory / "api.out", die_with_parent=True)
    child.start([sys.executable, "-c", CHILD], environment(values))
    try:
        place = Place(settings, values, f"http://127.0.0.1:{port}", secrets[Scope.ADMIN.value])
        child.wait_until(lambda: _answers(place.url), START_S)
        child.wait_until(lambda: _is_told(settings), START_S)
        yield place
    finally:
        child.stop(10.0)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _is_told(settings: Settings) -> bool:
    """Whether the seed has been published: what is measured is an idle control plane."""
    store = Store(database_url(settings))
    try:
        with store.read() as session:
            fact = select(OutboxFact.id).where(OutboxFact.published_at.is_(None)).limit(1)
            name = select(DimensionChange.id).limit(1)
            return session.scalar(fact) is None and session.scalar(name) is None
    finally:
        store.close()


def long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=40)


def seed(groups: int, members: int) -> Seed:
    return Seed(
        ORGANIZATION,
        "Bench",
        groups={f"group_{number}": f"Group {number}" for number in range(groups)},
        members=[
            NewMember(f"user{number}@example.com", f"User {number}", member_id=f"user_{number}")
            for number in range(members)
        ],
        places={f"user_{number}": f"group_{number % groups}" for number in range(members)},
        prices=[NewPrice("ai.tokens", 1_000_000)],
    )


def insert_usage(place: Place, groups: int, members: int) -> int:
    """One rated event of each member, this moment; the cost of all, in micro-credits."""
    now = datetime.now(UTC)
    ids = [f"user_{number}" for number in range(members)]
    costs = [COST_LEAST_MICRO + number for number in range(members)]
    columns: dict[str, list[Any]] = {
        "organization_id": [ORGANIZATION] * members,
        "source": ["bench"] * members,
        "event_id": [f"e{number}" for number in range(members)],
        "revision": [0] * members,
        "event_time": [now] * members,
        "meter": ["ai.tokens"] * members,
        "member_id": ids,
        "stamped_group_id": [f"group_{number % groups}" for number in range(members)],
        "cost_micro": costs,
        "overage_micro": costs,
        "credit_price_micro": [10_000] * members,
    }
    client = connect(place.settings)
    client.insert(
        "usage_rated_rows",
        list(columns.values()),
        column_names=list(columns),
        column_oriented=True,
    )
    client.close()
    return sum(costs)


@dataclass(frozen=True)
class Question:
    """A request whose answer reads the whole organization, and what must be true of the answer."""

    name: str
    method: str
    path: str
    check: Callable[[Any], None]


def questions(groups: int, members: int, total_micro: int) -> list[Question]:
    """What is asked of an organization that has this much, and usage of this cost."""

    def table(answer: Any) -> None:
        rows = answer["items"]
        assert sum(row["spend_micro"] for row in rows) == total_micro
        assert sum(row["member_count"] for row in rows) == members
        assert len(rows) == groups

    def groups_with_people(answer: Any) -> None:
        people = [one for row in answer["groups"] for one in row["currentMembers"]]
        assert len(answer["groups"]) == groups
        assert len(people) == members
        assert sum(round(one["spendCents"] * MICRO) for one in people) == total_micro

    def people(answer: Any) -> None:
        assert len(answer["teamMembers"]) == members

    def spend(answer: Any) -> None:
        first = answer["teamMemberSpend"][0]
        assert answer["totalMembers"] == members
        assert first["userId"] == f"user_{members - 1}"
        assert round(first["overallSpendCents"] * MICRO) == COST_LEAST_MICRO + members - 1

    return [
        Question("groups_table", "GET", f"/v1/organizations/{ORGANIZATION}/groups", table),
        Question("groups_with_people", "GET", "/teams/groups", groups_with_people),
        Question("members", "GET", "/teams/members", people),
        Question("spend_by_member", "POST", "/teams/spend", spend),
    ]


async def measure_answers(
    place: Place, requests: int, groups: int, members: int
) -> dict[str, list[float]]:
    """Milliseconds of each answer by its name, the first ones left out."""
    total_micro = insert_usage(place, groups, members)
    times_ms: dict[str, list[float]] = {}
    async with place.client() as client:
        for question in questions(groups, members, total_micro):
            times = times_ms[question.name] = []
            body: dict[str, Any] | None = {} if question.method == "POST" else None
            for number in range(requests + WARM_UP_REQUESTS):
                started = time.perf_counter()
                answer = await client.request(question.method, question.path, json=body)
                if number >= WARM_UP_REQUESTS:
                    times.append((time.perf_counter() - started) * 1000)
                question.check(answer.json())
    return times_ms


async def measure_stamps(place: Place, changes: int) -> list[float]:
    """Milliseconds from each acknowledged move to the last event with the former group."""
    topic = place.settings.topic(topics.USAGE)
    consumer = AIOKafkaConsumer(
        place.settings.topic(topics.USAGE_RATED),
        **client_options(place.settings),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(**client_options(place.settings), acks="all", linger_ms=0)
    await consumer.start()
    await producer.start()
    sent: dict[str, tuple[int, float, str]] = {}
    try:
        async with place.client() as client:
            for number in range(changes):
                group_id = f"group_{number % 2 + 1}"
                answer = await client.post(
                    f"/v1/organizations/{ORGANIZATION}/members/user_0/move",
                    json={"group_id": group_id},
                )
                assert answer.status_code == 200, answer.text
                await _send_usage(producer, topic, number, group_id, sent)
        stamps = await _read_stamps(consumer, sent)
    finally:
        await producer.stop()
        await consumer.stop()
    delays_ms = [0.0] * changes
    for event_id, (number, after_s, group_id) in sent.items():
        if stamps[event_id] != group_id:
            delays_ms[number] = max(delays_ms[number], (after_s + EVENT_EVERY_S) * 1000)
    for number in range(changes):
        last = max((one for one in sent.items() if one[1][0] == number), key=lambda one: one[1][1])
        assert stamps[last[0]] == last[1][2], "the change never reached the stamp"
    return delays_ms


async def _send_usage(
    producer: Any, topic: str, number: int, group_id: str, sent: dict[str, tuple[int, float, str]]
) -> None:
    acknowledged = time.perf_counter()
    futures = []
    while (after_s := time.perf_counter() - acknowledged) < WATCHED_S:
        event_id = f"move{number}-{len(sent)}"
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": "bench",
            "type": "ai.tokens",
            "subject": "user_0",
            "data": {"quantity": 1},
        }
        sent[event_id] = (number, after_s, group_id)
        futures.append(
            await producer.send(topic, msgspec.json.encode(event), key=ORGANIZATION.encode())
        )
        await asyncio.sleep(EVENT_EVERY_S)
    await asyncio.gather(*futures)


async def _read_stamps(consumer: Any, sent: dict[str, Any]) -> dict[str, str]:
    stamps: dict[str, str] = {}
    async with asyncio.timeout(DRAIN_S):
        while len(stamps) < len(sent):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    rated = _decode_rated(record.value)
                    stamps[rated.event_id] = rated.stamped_group_id
    return stamps


def figures(name: str, times_ms: list[float]) -> dict[str, float]:
    return {
        f"{name}_p{percent}_ms": round(float(np.percentile(times_ms, percent)), 1)
        for percent in (50, 95, 99)
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.api", description=__doc__)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--members", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--changes", type=int, default=100, help="moves; 0 starts no worker")
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="metering-bench-api-") as name:
        directory = Path(name)
        kafka, clickhouse = EmbeddedKafka(directory), EmbeddedClickHouse(directory)
        kafka.start()
        clickhouse.start()
        try:
            figures_by_name = _measure(kafka, clickhouse, directory, chosen)
        finally:
            clickhouse.stop()
            kafka.stop()
    print(json.dumps(figures_by_name))
    return 0


def _measure(
    kafka: EmbeddedKafka,
    clickhouse: EmbeddedClickHouse,
    directory: Path,
    chosen: argparse.Namespace,
) -> dict[str, Any]:
    sizes = {"groups": chosen.groups, "members": chosen.members}
    with running(kafka, clickhouse, directory, **sizes) as place:
        times_ms = asyncio.run(measure_answers(place, chosen.requests, **sizes))
        if chosen.changes:
            times_ms["change_to_stamp"] = with_worker(place, directory, chosen.changes)
    results: dict[str, Any] = dict(sizes)
    for name, measured in times_ms.items():
        results |= figures(name, measured)
    return results


def with_worker(place: Place, directory: Path, changes: int) -> list[float]:
    """`measure_stamps` with a stream worker of its own."""
    port = int(place.values["metrics_port"])
    worker = PipelineProcess("worker", place.values, port, directory / "worker.out")

    async def measure() -> list[float]:
        await worker.start()
        try:
            await worker.ready()
            return await measure_stamps(place, changes)
        finally:
            await worker.stop()

    return asyncio.run(measure())


if __name__ == "__main__":
    raise SystemExit(main())
