"""What all tests share: one broker and one ClickHouse a run, started when the first test asks.

Tests are kept apart by a topic prefix and a database of their own (`make_settings`), not by engines
of their own: a broker takes seconds to start. Whoever kills an engine starts one for himself.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings as hypothesis_settings

from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from schemas.settings import Settings

hypothesis_settings.register_profile("metering", deadline=None)
hypothesis_settings.load_profile("metering")

_numbers = itertools.count(1)


class MakeSettings(Protocol):
    def __call__(self, **overrides: Any) -> Settings: ...


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    broker = EmbeddedKafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    engine = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"))
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def make_settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MakeSettings:
    """Settings for one test: a topic prefix, database and application of its own.

    Points to the shared engines as far as the test asked for them by the fixtures `kafka` and
    `clickhouse`. Four partitions, ports chosen by the system, and nothing from the environment.
    """
    for name in Settings.model_fields:
        monkeypatch.delenv(f"METERING_{name.upper()}", raising=False)
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "app_id": f"test{number}",
        "instance_id": "one",
        "topic_prefix": f"test{number}.",
        "clickhouse_database": f"test{number}",
        "data_dir": tmp_path / "metering",
        "partitions": 4,
        "metrics_port": 0,
        "sink_metrics_port": 0,
    }
    if "kafka" in request.fixturenames:
        defaults["kafka_bootstrap"] = request.getfixturevalue("kafka").bootstrap
    if "clickhouse" in request.fixturenames:
        defaults |= clickhouse_settings(request.getfixturevalue("clickhouse"))

    def make(**overrides: Any) -> Settings:
        return Settings(**{**defaults, **overrides})

    return make


def clickhouse_settings(engine: EmbeddedClickHouse) -> dict[str, Any]:
    """The part of Settings that points to an embedded engine, as its writer."""
    return {
        "clickhouse_url": engine.url,
        "clickhouse_user": engine.writer.name,
        "clickhouse_password": engine.writer.password,
    }
