"""A migrated database on the shared engine, and rows put into it as the sink would."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from deploy.embedded import EmbeddedClickHouse
from schemas import codec
from schemas.settings import Settings
from tests.conftest import MakeSettings
from warehouse.connection import connect
from warehouse.migrations import migrate

Put = Callable[[str, Iterable[Any]], None]


@pytest.fixture
def settings(clickhouse: EmbeddedClickHouse, make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
def client(settings: Settings) -> Iterator[Any]:
    migrate(settings)
    connected = connect(settings)
    yield connected
    connected.command(f"DROP DATABASE {settings.clickhouse_database}")
    connected.close()


@pytest.fixture
def put(client: Any) -> Put:
    """Records into a stored table, as the JSON that goes over Kafka."""

    def insert(table: str, records: Iterable[Any]) -> None:
        rows = b"\n".join(codec.encode(record) for record in records)
        client.raw_insert(
            table,
            insert_block=rows,
            fmt="JSONEachRow",
            settings={"date_time_input_format": "best_effort"},
        )

    return insert
