"""The CloudEvents SDKs of four languages send one event in every mode, by HTTP and by Kafka.

The Python SDK runs here. The others were recorded, and the requests are replayed; those of
JavaScript and Java also run where their tools are.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from cloudevents.core.bindings import http as http_binding
from cloudevents.core.bindings import kafka as kafka_binding
from cloudevents.core.v1.event import CloudEvent

from deploy.embedded.java import kafka_classpath
from schemas.settings import Settings
from streams.kafka import client_options, create_topics
from tests.api.serving import Served, serving
from tests.api.test_cloudevents import charged
from tests.api.test_events import BATCH
from tests.conftest import MakeSettings

SDKS = Path(__file__).with_name("sdks")
INSTALLED = Path(__file__).parents[2] / ".runtime" / "sdks"
YESTERDAY = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
RECORDED: list[dict[str, Any]] = json.loads(
    (SDKS / "recorded.json").read_text().replace("DAY", YESTERDAY)
)
ATTRIBUTES = {
    "specversion": "1.0",
    "id": "order 100% #7",
    "source": "editor/eu-1",
    "type": "ai.tokens",
    "subject": "user_42",
    "organizationid": "org_a",
}
DATA = {"quantity": 1830, "website_id": "web_3", "dimensions": {"model": "large"}}
INSTALL_TIMEOUT_S = 240
RUN_TIMEOUT_S = 120


@pytest.fixture
def settings(make_settings: MakeSettings, kafka: object) -> Settings:
    own_settings = make_settings()
    asyncio.run(create_topics(own_settings))
    return own_settings


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    with serving(settings) as opened:
        yield opened


def event(**more: Any) -> CloudEvent:
    time = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=123_000)
    return CloudEvent(attributes=ATTRIBUTES | {"time": time} | more, data=DATA)


def post(served: Served, content: bytes, headers: dict[str, Any]) -> None:
    with served.client("ingest") as client:
        sent = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = client.post("/v1/events", content=content, headers=sent)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "refused": []})


async def produce(settings: Settings, messages: list[tuple[Any, Any, Any]]) -> None:
    """Key, headers and value of each, as the SDK hands them to a producer."""
    async with AIOKafkaProducer(**client_options(settings)) as producer:
        for key, headers, value in messages:
            await producer.send_and_wait(
                settings.topic("usage"), value, key=key, headers=list(headers.items())
            )


def test_the_python_sdk(served: Served, settings: Settings) -> None:
    structured = http_binding.to_structured_event(event())
    binary = http_binding.to_binary_event(event())
    for message in (binary, structured):
        post(served, message.body, message.headers)
    post(served, b"[" + structured.body + b"]", BATCH)
    keyed = event(partitionkey="org_a")
    messages = [
        kafka_binding.to_binary_event(keyed),
        kafka_binding.to_structured_event(keyed),
    ]
    asyncio.run(produce(settings, [(b"org_a", one.headers, one.value) for one in messages]))
    assert [row.event_id for row in charged(settings, records=5)] == ["order 100% #7"]


def test_the_recorded_sdks_sent_one_event(served: Served, settings: Settings) -> None:
    """All three together: the languages agree with each other too."""
    for sdk in RECORDED:
        for request in sdk["http"]:
            post(served, request["body"].encode(), request["headers"])
        messages = [
            (
                one["key"].encode(),
                {name: text.encode("latin-1") for name, text in one["headers"].items()},
                one["value"].encode(),
            )
            for one in sdk["kafka"]
        ]
        asyncio.run(produce(settings, messages))
    assert [row.event_id for row in charged(settings, records=15)] == ["order 100% #7"]


def installed(name: str, *command: str) -> Path:
    """A directory with the SDK, kept for the next run. Skips without tool or registry."""
    place = INSTALLED / name
    for tool in {command[0], *(("javac",) if name == "java" else ())}:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    manifest = SDKS / ("pom.xml" if name == "java" else "package.json")
    stamp = place / manifest.name
    if not (stamp.exists() and stamp.read_text() == manifest.read_text()):
        shutil.rmtree(place, ignore_errors=True)
        fetched = place.with_name(f"{name}.{os.getpid()}")
        fetched.mkdir(parents=True)
        shutil.copy(manifest, fetched / manifest.name)
        install = subprocess.run(
            command, cwd=fetched, capture_output=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
        if install.returncode != 0:
            shutil.rmtree(fetched)
            pytest.skip(f"{command[0]} could not fetch the SDK: {install.stderr[-300:]!r}")
        fetched.rename(place)
    return place


def run(served: Served, settings: Settings, *command: str) -> None:
    arguments = (
        f"{served.url}/v1/events",
        served.key("ingest", "org_a"),
        settings.kafka_bootstrap,
        settings.topic("usage"),
        f"{YESTERDAY}T12:00:00.123Z",
    )
    process = subprocess.run(
        [*command, *arguments], capture_output=True, timeout=RUN_TIMEOUT_S, check=False
    )
    assert process.returncode == 0, process.stderr.decode()[-2_000:]
    assert [row.event_id for row in charged(settings, records=5)] == ["order 100% #7"]


def test_the_javascript_sdk(served: Served, settings: Settings) -> None:
    place = installed("javascript", "npm", "install", "--no-package-lock", "--ignore-scripts")
    program = shutil.copy(SDKS / "send.mjs", place / "send.mjs")
    run(served, settings, "node", str(program))


def test_the_java_sdk(served: Served, settings: Settings, tmp_path: Path) -> None:
    place = installed(
        "java", "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"
    )
    classpath = f"{place / 'jars'}/*:{kafka_classpath()}"
    compiled = tmp_path / "classes"
    subprocess.run(
        ["javac", "-encoding", "UTF-8", "-cp", classpath, "-d", compiled, SDKS / "Send.java"],
        check=True,
        timeout=RUN_TIMEOUT_S,
    )
    run(served, settings, "java", "-cp", f"{classpath}:{compiled}", "Send")
