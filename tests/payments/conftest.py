"""Databases of both kinds with an organization, a group, and a purchase to be settled."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.rules.change import Control
from api.storage.migrate import migrate
from api.storage.store import Store
from tests.api.conftest import (
    SECRET,
    Clock,
    clock,
    control,
    empty_database,
    new_control,
    postgresql_server,
    store,
)
from tests.cli.conftest import run_command
from tests.stripe.conftest import stripe_mock

__all__ = [
    "clock",
    "control",
    "empty_database",
    "postgresql_server",
    "run_command",
    "store",
    "stripe_mock",
]


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the organization `org_a`, to be copied: migrating is most of a short test."""
    file = tmp_path_factory.mktemp("migrated") / "control-plane.sqlite"
    store = Store(f"sqlite:///{file}")
    migrate(store)
    new_control(store, Clock())
    store.close()
    return file


@pytest.fixture
def new_plane(
    migrated_sqlite: Path, tmp_path: Path, clock: Clock
) -> Iterator[Callable[[], Control]]:
    """Makes control planes, each on a database of its own."""
    stores: list[Store] = []

    def make() -> Control:
        file = shutil.copy(migrated_sqlite, tmp_path / f"{len(stores)}.sqlite")
        stores.append(Store(f"sqlite:///{file}"))
        return Control(stores[-1], clock, SECRET)

    yield make
    for opened in stores:
        opened.close()


@pytest.fixture
def sqlite_control(new_plane: Callable[[], Control]) -> Control:
    """For what does not depend on the database."""
    return new_plane()
