"""Topics and tables of one test, on the shared engines."""

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from deploy.embedded.ports import free_port
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.conftest import MakeSettings
from warehouse.connection import connect
from warehouse.migrations import migrate


@pytest.fixture
async def settings(
    kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse, make_settings: MakeSettings
) -> Settings:
    own_settings = make_settings(
        sink_batch_max_wait_s=0.2,
        sink_batch_max_rows=500,
        sink_metrics_port=free_port(),
        session_timeout_s=6.0,
    )
    await create_topics(own_settings)
    migrate(own_settings)
    return own_settings


@pytest.fixture
def client(settings: Settings) -> Iterator[Any]:
    connected = connect(settings)
    yield connected
    connected.command(f"DROP DATABASE {settings.clickhouse_database}")
    connected.close()
