"""The worker's health tells the truth: its port is open before Kafka, and without partitions."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.embedded import EmbeddedKafka
from deploy.embedded.child import ChildProcess, clean_environment
from deploy.embedded.ports import free_port
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.cli.conftest import environment_of
from tests.conftest import MakeSettings

WITHIN_S = 60.0
GAUGES = ("metering_lag_records", "metering_recovery_seconds", "metering_recovered_records")
OK = (200, "ok\n")


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    broker = EmbeddedKafka(tmp_path)
    yield broker
    broker.stop()


class Worker:
    def __init__(self, settings: Settings) -> None:
        self._url = f"http://127.0.0.1:{settings.metrics_port}"
        self._settings = settings

    def ready(self) -> tuple[int, str]:
        return self._get("/health/ready")

    def live(self) -> tuple[int, str]:
        return self._get("/health/live")

    def partitions_by(self, gauges: tuple[str, ...]) -> list[set[int]]:
        """Of which partitions it tells each of these."""
        text = self._get("/metrics")[1]
        return [
            {int(each) for each in re.findall(rf'^{gauge}{{.*partition="(\d+)"', text, re.M)}
            for gauge in gauges
        ]

    def _get(self, path: str) -> tuple[int, str]:
        try:
            answer = httpx.get(self._url + path, timeout=10)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text


@contextmanager
def worker(settings: Settings) -> Iterator[Worker]:
    child = ChildProcess("worker", settings.data_dir / "worker.log", die_with_parent=True)
    command = [sys.executable, "-m", "cli", "worker"]
    child.start(command, clean_environment(environment_of(settings)))
    try:
        yield Worker(settings)
    finally:
        child.stop(20)


def eventually(ask: Callable[[], Any], is_wanted: Callable[[Any], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_wanted(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)


def of(make_settings: MakeSettings, kafka: EmbeddedKafka, tmp_path: Path, name: str) -> Settings:
    return make_settings(
        kafka_bootstrap=kafka.bootstrap,
        instance_id=name,
        data_dir=tmp_path / name,
        metrics_port=free_port(),
        partitions=2,
        session_timeout_s=6.0,
    )


def says_kafka(answer: tuple[int, str]) -> bool:
    return answer[0] == 503 and "kafka" in answer[1]


async def test_live_and_not_ready_while_kafka_is_away(
    own_kafka: EmbeddedKafka, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = of(make_settings, own_kafka, tmp_path, "one")
    with worker(settings) as one:
        eventually(one.ready, says_kafka)
        assert one.live() == OK
        own_kafka.start()
        await create_topics(settings)
        eventually(one.ready, lambda answer: answer == OK)


async def test_partitions_that_go_elsewhere_take_their_gauges_with_them(
    own_kafka: EmbeddedKafka, make_settings: MakeSettings, tmp_path: Path
) -> None:
    own_kafka.start()
    settings = [of(make_settings, own_kafka, tmp_path, name) for name in ("one", "two", "three")]
    await create_topics(settings[0])
    with worker(settings[0]) as one:
        eventually(lambda: one.partitions_by(GAUGES), lambda gauges: gauges == [{0, 1}] * 3)
        with worker(settings[1]) as two:
            eventually(
                lambda: [one.partitions_by(GAUGES), two.partitions_by(GAUGES)],
                lambda gauges: sorted(map(str, gauges)) == [str([{n}] * 3) for n in range(2)],
            )
            # There is none for the third: it could take over, and knows whether Kafka answers.
            with worker(settings[2]) as three:
                eventually(three.ready, lambda answer: answer == OK)
                assert three.partitions_by(GAUGES) == [set()] * 3
                own_kafka.kill()
                for each in (one, two, three):
                    eventually(each.ready, says_kafka)
                    assert each.live() == OK
