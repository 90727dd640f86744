"""Databases of both kinds with an organization, a group, and a purchase to be settled."""

import pytest

from api.rules.change import Control
from api.storage.store import Store
from tests.api.conftest import (
    Clock,
    clock,
    control,
    empty_database,
    new_control,
    postgresql_server,
    sqlite_store,
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
    "sqlite_store",
    "store",
    "stripe_mock",
]


@pytest.fixture
def sqlite_control(sqlite_store: Store, clock: Clock) -> Control:
    """For what does not depend on the database."""
    return new_control(sqlite_store, clock)
