"""The pipeline against a broker that wants TLS and a password, as a production cluster does."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from cli.up.parts import READY_PATH, is_healthy
from deploy.embedded import EmbeddedKafka
from deploy.embedded.child import ChildProcess
from deploy.embedded.java import find_java, kafka_classpath
from deploy.embedded.ports import free_port
from schemas import topics
from schemas.settings import Settings
from streams.kafka import client_options, create_topics
from tests.conftest import MakeSettings

ROOT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "metering", "a long password"
EVENT = (
    b'{"specversion":"1.0","id":"e1","source":"s","type":"ai.tokens","subject":"u",'
    b'"organizationid":"org_nobody_knows","data":{"quantity":1}}\n'
)
LOGIN = "org.apache.kafka.common.security"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed, so its own authority: key and certificate in one PEM file."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl (package `openssl`)")
    directory = tmp_path_factory.mktemp("tls")
    key, authority, both = directory / "key.pem", directory / "ca.pem", directory / "broker.pem"
    command = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(authority)),
    ]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(key.read_text() + authority.read_text())
    return both


@pytest.fixture(scope="module")
def secured(
    certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What Settings are to say. A broker with a third listener beside its own two."""
    port, controller = free_port(), free_port()
    own = free_port()
    listeners = f"BROKER://127.0.0.1:{own},SECURED://127.0.0.1:{port}"
    broker = EmbeddedKafka(
        tmp_path_factory.mktemp("secured"),
        port=own,
        settings={
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listener.security.protocol.map": (
                "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL"
            ),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.secured.plain.sasl.jaas.config": (
                f'{LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            ),
            "listener.name.secured.scram-sha-512.sasl.jaas.config": (
                f"{LOGIN}.scram.ScramLoginModule required;"
            ),
            "listener.name.secured.ssl.keystore.type": "PEM",
            "listener.name.secured.ssl.keystore.location": str(certificate),
        },
    )
    broker.start()
    try:
        _add_user(broker)
        yield {
            "kafka_bootstrap": f"127.0.0.1:{port}",
            "kafka_security_protocol": "SASL_SSL",
            "kafka_security_username": USER,
            "kafka_security_password": PASSWORD,
            "kafka_security_ca_file": str(certificate.parent / "ca.pem"),
        }
    finally:
        broker.stop()


def _add_user(broker: EmbeddedKafka) -> None:
    command = [
        *(find_java(), "-cp", kafka_classpath(), "kafka.admin.ConfigCommand"),
        *("--bootstrap-server", broker.bootstrap, "--alter", "--entity-type", "users"),
        *("--entity-name", USER, "--add-config", f"SCRAM-SHA-512=[password={PASSWORD}]"),
    ]
    subprocess.run(command, check=True, capture_output=True)


def _environment(settings: Settings) -> dict[str, str]:
    variables = {
        f"METERING_{name.upper()}": str(
            value.get_secret_value() if hasattr(value, "get_secret_value") else value
        )
        for name in settings.model_fields_set
        if (value := getattr(settings, name)) is not None
    }
    return {**os.environ, **variables, "PYTHONPATH": str(ROOT)}


async def _first_dead_letter(settings: Settings) -> Any:
    consumer = AIOKafkaConsumer(
        settings.topic(topics.DEAD_LETTERS),
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        **client_options(settings),
    )
    await consumer.start()
    try:
        return await consumer.getone()
    finally:
        await consumer.stop()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_an_event_goes_through_tls_and_login(
    mechanism: str, secured: dict[str, Any], make_settings: MakeSettings, tmp_path: Path
) -> None:
    port = free_port()
    settings = make_settings(**secured, kafka_security_sasl_mechanism=mechanism, metrics_port=port)
    asyncio.run(create_topics(settings))
    environment = _environment(settings)
    worker = ChildProcess("worker", tmp_path / "worker.log", die_with_parent=True)
    worker.start([sys.executable, "-m", "cli", "worker"], environment)
    try:
        worker.wait_until(lambda: is_healthy(port, READY_PATH), 60)
        emit = [sys.executable, "-m", "cli", "emit", "-"]
        sent = subprocess.run(emit, env=environment, input=EVENT, capture_output=True, check=False)
        assert sent.returncode == 0, sent.stderr
        letter = asyncio.run(_first_dead_letter(settings))
    finally:
        worker.stop(20)
    assert worker.exit_code == 0, "it waited for the broker's goodbye until it was killed"
    assert letter.value == EVENT.strip()
    assert ("reason", b"unknown_organization") in letter.headers


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kafka_security_password": "wrong"}, "invalid credentials"),
        ({"kafka_security_sasl_mechanism": "SCRAM-SHA-256"}, "SCRAM-SHA-256"),
        ({"kafka_security_ca_file": None}, "CERTIFICATE_VERIFY_FAILED"),
    ],
)
@pytest.mark.parametrize("command", ["worker", "sink", "emit"])
def test_who_is_refused_ends_with_one_clear_line(
    command: str,
    wrong: dict[str, Any],
    said: str,
    secured: dict[str, Any],
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(**{**secured, **wrong})
    arguments = ["emit", "-"] if command == "emit" else [command]
    ended = subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        env=_environment(settings),
        input=EVENT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    last = ended.stderr.decode().strip().splitlines()[-1]
    assert last.startswith("metering: Kafka at 127.0.0.1:")
    assert said in last


def test_doctor_says_so_too(secured: dict[str, Any], make_settings: MakeSettings) -> None:
    settings = make_settings(**{**secured, "kafka_security_password": "wrong"})
    ended = subprocess.run(
        [sys.executable, "-m", "cli", "doctor"],
        env=_environment(settings),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    said = [line for line in ended.stdout.decode().splitlines() if "Kafka" in line]
    assert len(said) == 1
    assert "invalid credentials" in said[0]
