"""What all tests share: one broker and one ClickHouse a run, started when the first test asks.

Tests are kept apart by a topic prefix and a database of their own (`make_settings`), not by engines
of their own: a broker takes seconds to start. Whoever kills an engine starts one for himself.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings as hypothesis_settings

from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from schemas.settings import Settings

hypothesis_settings.register_profile("metering", deadline=None)
hypothesis_settings.load_profile("metering")

# A broker of a test lives for seconds: the JVM's second compiler would take more of the processor
# than all it does (a third of what the runtime's tests take).
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")

LONGEST_FIRST = (
    "cli/test_up.py",
    "verification/test_verify.py",
    "exactly_once/test_crashes.py",
    "money/test_machine.py",
    "money/test_matrix.py",
    "cli/test_up_starts.py",
    "money/test_kills.py",
    "fuzzing/test_fuzz.py",
    "sinks/test_outages.py",
    "bench/test_bench.py",
    "cli/test_readme.py",
    "deploy/test_secured_kafka.py",
    "api/test_kill.py",
    "deploy/test_full_disk.py",
    "deploy/test_embedded_kafka.py",
    "streams/test_health.py",
    "warehouse/test_reports.py",
)
"""Files that take half a minute and more. Where files are tested side by side, one of these that
came last would be waited for by everybody."""

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of `LONGEST_FIRST` before all others; every other order stays as it is."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


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
