"""Databases (SQLite and PostgreSQL), a clock that tests move, and a ready organization."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url, text

from api.payments.providers import Payments
from api.rules.change import Actor, Control
from api.rules.organizations import OrganizationSettings, create_organization
from api.storage.migrate import migrate
from api.storage.store import Store
from deploy.embedded.kafka import EmbeddedKafka
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.api import postgresql
from tests.api.serving import Served, serving
from tests.api.shop import CashTill, open_shop
from tests.conftest import MakeSettings

SECRET = b"a secret for the tests"
ADMIN = Actor("key:admin", "api")
BY_HAND = Actor("cli:tester", "manual")
BY_SCIM = Actor("key:scim", "scim")


@dataclass
class Clock:
    """Moves only when told to."""

    now: datetime = field(default_factory=lambda: datetime(2026, 11, 10, 12, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    with postgresql.running() as url:
        yield url


def new_postgresql_database(server: str, template: str = "template1") -> str:
    """The URL of a new database, a copy of the template, to which nobody may be connected."""
    name = f"test_{uuid4().hex[:12]}"
    engine = create_engine(
        server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    engine.dispose()
    return f"{server.replace('postgresql:', 'postgresql+psycopg:').rsplit('/', 1)[0]}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'control-plane.sqlite'}"
    return new_postgresql_database(request.getfixturevalue("postgresql_server"))


@pytest.fixture
def store(empty_database: str) -> Iterator[Store]:
    opened = Store(empty_database)
    migrate(opened)
    yield opened
    opened.close()


def backup_of(store: Store) -> Store:
    """A copy of the database as it is now. Of SQLite's file everything is in the main one, since
    the last connection has been closed; PostgreSQL makes it from a template."""
    store.close()
    url = make_url(store.url)
    assert url.database
    if store.is_sqlite:
        copy = f"{url.database}.backup"
        shutil.copy(url.database, copy)
        return Store(f"sqlite:///{copy}")
    server = url.set(drivername="postgresql", database="postgres").render_as_string(False)
    return Store(new_postgresql_database(server, url.database))


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'control-plane.sqlite'}")
    migrate(opened)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    kafka = EmbeddedKafka(tmp_path_factory.mktemp("kafka"), heap_mib_min=64, heap_mib_max=256)
    kafka.start()
    yield kafka
    kafka.stop()


@pytest.fixture
def settings(broker: EmbeddedKafka, tmp_path: Path) -> Settings:
    """Settings with topics of the test's own on the shared broker."""
    own_settings = Settings(
        kafka_bootstrap=broker.bootstrap,
        topic_prefix=f"t{uuid4().hex[:10]}-",
        partitions=2,
        data_dir=tmp_path,
        alias_secret=SecretStr(SECRET.decode()),
    )
    asyncio.run(create_topics(own_settings))
    return own_settings


@pytest.fixture
def selling(make_settings: MakeSettings) -> Iterator[Served]:
    """The API with an open shop (`tests.api.shop`), and no ClickHouse behind it."""
    with serving(make_settings(clickhouse_url="http://127.0.0.1:1")) as opened:
        open_shop(opened.control)
        yield opened


@pytest.fixture
def till(selling: Served) -> CashTill:
    """Who takes the money there; also as the partner `acme` of `org_b`."""
    till = CashTill(selling.control)
    selling.app.state.api.desk.payments = Payments(till, {"acme": till}, {"org_b": "acme"})
    return till


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def control(store: Store, clock: Clock) -> Control:
    """A control plane with the organization `org_a`."""
    return new_control(store, clock)


def new_control(store: Store, clock: Clock) -> Control:
    control = Control(store, clock, SECRET)
    with control.transaction(ADMIN) as transaction:
        create_organization(transaction, "Acme", OrganizationSettings(), "org_a")
    return control
