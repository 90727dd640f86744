"""`kill -9` of the API at any moment: nothing acknowledged is lost, nothing takes effect twice, and
the topic holds every version in order."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import httpx
from sqlalchemy import select

from api.rules.change import Control
from api.rules.keys import Scope, create_key
from api.rules.organizations import OrganizationSettings, create_organization
from api.storage.ledgers import OutboxFact
from api.storage.migrate import migrate
from api.storage.models import BillingGroup
from api.storage.store import Store, database_url
from deploy.embedded.ports import free_port
from schemas import codec
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.api.serving import SETUP
from tests.api.topic import read_all
from tests.conftest import MakeSettings

KILLS = 4
CHILD = "from api.server import run; from schemas.settings import Settings; run(Settings())"


def start(settings: Settings, port: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "METERING_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "METERING_TOPIC_PREFIX": settings.topic_prefix,
        "METERING_PARTITIONS": str(settings.partitions),
        "METERING_DATA_DIR": str(settings.data_dir),
        "METERING_DATABASE_URL": settings.database_url,
        "METERING_API_PORT": str(port),
        "METERING_LOG_LEVEL": "error",
    }
    return subprocess.Popen([sys.executable, "-c", CHILD], env=environment)


def test_killed_at_any_moment(
    make_settings: MakeSettings, kafka: object, empty_database: str
) -> None:
    settings = make_settings(database_url=empty_database)
    asyncio.run(create_topics(settings))
    store = Store(database_url(settings))
    migrate(store)
    control = Control(store, lambda: datetime.now(UTC), b"x" * 16)
    with control.transaction(SETUP) as transaction:
        create_organization(transaction, "Acme", OrganizationSettings(), "org_a")
        secret = create_key(transaction, Scope.ADMIN, "test", "org_a").secret
    port, chance = free_port(), random.Random(7)
    acknowledged: list[str] = []
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=(secret, ""), timeout=5)
    for attempt in range(KILLS + 1):
        api = start(settings, port)
        try:
            await_start(client, api)
            until = time.monotonic() + chance.uniform(0.2, 1.0)
            while time.monotonic() < until:
                name = f"Group {attempt}-{len(acknowledged)}"
                if client.post("/teams/groups", json={"name": name}).status_code == 200:
                    acknowledged.append(name)
            if attempt == KILLS:
                await_published(store)
        finally:
            api.send_signal(signal.SIGKILL)
            api.wait(10)
    client.close()
    check(settings, store, acknowledged)
    store.close()


def await_start(client: httpx.Client, api: subprocess.Popen[bytes]) -> None:
    while True:
        assert api.poll() is None
        try:
            if client.get("/health/live").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)


def await_published(store: Store) -> None:
    for _ in range(600):
        with store.read() as session:
            query = select(OutboxFact.id).where(OutboxFact.published_at.is_(None)).limit(1)
            if session.scalar(query) is None:
                return
        time.sleep(0.05)
    raise AssertionError("the outbox does not empty")


def check(settings: Settings, store: Store, acknowledged: list[str]) -> None:
    assert acknowledged
    seen: dict[int, bytes] = {}
    for _, value in asyncio.run(read_all(settings, "memberships")):
        version = codec.decode_membership(value).version
        if version not in seen:
            assert version == len(seen) + 1, "a version came too early"
        assert seen.setdefault(version, value) == value, "a version with two contents"
    with store.read() as session:
        rows = session.execute(select(OutboxFact.version, OutboxFact.payload)).all()
        assert {row.version: row.payload for row in rows} == seen
        names = set(session.scalars(select(BillingGroup.name)))
    assert set(acknowledged) <= names
