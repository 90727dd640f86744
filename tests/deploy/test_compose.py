"""The production shape agrees with the code: commands, settings, files, ports, metrics.

No container is started here; what a service would run and be told is checked against the real
command line and the real settings.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from api.options import ApiOptions, PaymentOptions
from schemas.settings import Settings

PROJECT_ROOT = Path(__file__).resolve().parents[2]
OURS = ("setup", "worker", "sink", "api")
COMMAND_TIMEOUT_SECONDS = 60
VARIABLE_PATTERN = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-+?])(?P<text>[^}]*))?\}")
METRIC_PATTERN = re.compile(r"\bmetering_[a-z_]+")


def _example_environment() -> dict[str, str]:
    lines = (PROJECT_ROOT / "deploy" / "example.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _compose() -> dict[str, Any]:
    """As Compose reads it: variables replaced from the example environment, merges applied."""
    environment = _example_environment()

    def replaced(variable: re.Match[str]) -> str:
        if variable["kind"] == "-":
            return environment.get(variable["name"]) or variable["text"]
        if variable["kind"] == "+":
            return variable["text"] if environment.get(variable["name"]) else ""
        return environment[variable["name"]]

    text = (PROJECT_ROOT / "docker-compose.yml").read_text()
    loaded: dict[str, Any] = yaml.safe_load(VARIABLE_PATTERN.sub(replaced, text))
    return loaded


SERVICES: dict[str, dict[str, Any]] = _compose()["services"]


def _metering_commands(service: str) -> Iterator[list[str]]:
    """Each `metering …` that a service runs, without its first word."""
    command = SERVICES[service]["command"]
    shell = command[2].split(" && ") if command[:2] == ["sh", "-c"] else [" ".join(command)]
    for words in shell:
        first, *rest = words.split()
        assert first == "metering"
        yield rest


def _run_cli(
    arguments: list[str], environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    kept = {name: text for name, text in os.environ.items() if not name.startswith("METERING_")}
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=PROJECT_ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_SECONDS,
        check=False,
    )


def test_every_variable_is_in_the_example() -> None:
    text = (PROJECT_ROOT / "docker-compose.yml").read_text()
    named = {variable["name"] for variable in VARIABLE_PATTERN.finditer(text)}
    assert named == set(_example_environment())


@pytest.mark.parametrize("service", OURS)
def test_every_setting_exists(service: str) -> None:
    known = {f"METERING_{name.upper()}" for name in Settings.model_fields}
    if service == "api":
        known |= {f"METERING_API_{name.upper()}" for name in ApiOptions.model_fields}
        known |= {f"METERING_STRIPE_{name.upper()}" for name in PaymentOptions.model_fields}
    assert set(SERVICES[service]["environment"]) <= known


@pytest.mark.parametrize("service", OURS)
def test_the_environment_is_accepted(service: str) -> None:
    environment = SERVICES[service]["environment"]
    outcome = _run_cli(["config"], environment)
    assert outcome.returncode == 0, outcome.stderr
    for name, text in environment.items():
        if name.endswith(("PASSWORD", "SECRET")):
            assert not text or text not in outcome.stdout
    assert _example_environment()["METERING_POSTGRESQL_PASSWORD"] not in outcome.stdout


@pytest.mark.parametrize("service", OURS)
def test_every_command_exists(service: str) -> None:
    for arguments in _metering_commands(service):
        outcome = _run_cli([*arguments, "--help"], {})
        assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_every_mounted_file_exists(service: str) -> None:
    volumes = _compose()["volumes"]
    for mount in SERVICES[service].get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("./"):
            assert (PROJECT_ROOT / source).is_file()
        else:
            assert source in volumes or source == "/dev/null"


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_this_machine_only(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service].get("ports", []))


@pytest.mark.parametrize("service", SERVICES)
def test_logs_are_bounded(service: str) -> None:
    assert SERVICES[service]["logging"]["options"]["max-size"]


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"setup"}))
def test_every_lasting_service_has_a_health_check(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", ["worker", "sink"])
def test_the_metrics_port_is_one_and_the_same(service: str) -> None:
    variable = "METERING_METRICS_PORT" if service == "worker" else "METERING_SINK_METRICS_PORT"
    port = SERVICES[service]["environment"][variable]
    scraped = yaml.safe_load((PROJECT_ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job["dns_sd_configs"][0] for job in scraped["scrape_configs"]}
    assert jobs[service] == {"names": [service], "type": "A", "port": int(port)}
    assert SERVICES[service]["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}/health/ready"
    assert SERVICES[service]["environment"]["METERING_METRICS_HOST"] == "0.0.0.0"


def test_the_api_is_scraped_published_and_asked_for_its_health_at_its_port() -> None:
    port = SERVICES["api"]["environment"]["METERING_API_PORT"]
    scraped = yaml.safe_load((PROJECT_ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job["dns_sd_configs"][0] for job in scraped["scrape_configs"]}
    assert jobs["api"] == {"names": ["api"], "type": "A", "port": int(port)}
    assert SERVICES["api"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert SERVICES["api"]["healthcheck"]["test"][-1] == f"http://127.0.0.1:{port}/health/ready"
    assert SERVICES["api"]["environment"]["METERING_API_HOST"] == "0.0.0.0"


def test_the_control_plane_and_its_migration_share_one_database() -> None:
    database = SERVICES["postgresql"]["environment"]
    address = urlsplit(SERVICES["api"]["environment"]["METERING_DATABASE_URL"])
    assert (address.scheme, address.hostname, address.port) == ("postgresql", "postgresql", 5432)
    assert (address.username, address.password) == (
        database["POSTGRES_USER"],
        database["POSTGRES_PASSWORD"],
    )
    assert address.path == f"/{database['POSTGRES_DB']}"
    assert SERVICES["setup"]["environment"]["METERING_DATABASE_URL"] == address.geturl()
    assert SERVICES["setup"]["depends_on"]["postgresql"] == {"condition": "service_healthy"}


def test_what_must_be_alike_is_alike() -> None:
    """Aliases are hashes, which worker and control plane must make with one secret."""
    secrets = {SERVICES[one]["environment"]["METERING_ALIAS_SECRET"] for one in ("worker", "api")}
    assert len(secrets) == 1


@pytest.mark.parametrize("service", sorted(set(SERVICES) - set(OURS)))
def test_images_are_pinned(service: str) -> None:
    assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+[\d.]*", SERVICES[service]["image"])


def test_services_find_each_other_at_the_addresses_given() -> None:
    environment = SERVICES["worker"]["environment"]
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INSIDE://{environment['METERING_KAFKA_BOOTSTRAP']}," in advertised
    assert environment["METERING_CLICKHOUSE_URL"] == "http://clickhouse:8123"
    for name in ("USER", "PASSWORD"):
        assert (
            SERVICES["clickhouse"]["environment"][f"CLICKHOUSE_{name}"]
            == environment[f"METERING_CLICKHOUSE_{name}"]
        )


def test_alerts_watch_metrics_that_exist() -> None:
    sources = "".join(
        path.read_text()
        for part in ("streams", "sinks", "api")
        for path in (PROJECT_ROOT / part).rglob("*.py")
    )
    exported = set(METRIC_PATTERN.findall(sources))
    alerts = yaml.safe_load((PROJECT_ROOT / "deploy/prometheus/alerts.yml").read_text())
    for rule in alerts["groups"][0]["rules"]:
        for metric in METRIC_PATTERN.findall(rule["expr"]):
            # The client library appends `_total` to counters, `_bucket` to histograms.
            name = metric.removesuffix("_total").removesuffix("_bucket")
            assert {name, f"{name}_total"} & exported, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "action"}


def test_the_image_copies_what_exists() -> None:
    lines = (PROJECT_ROOT / "deploy" / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            *sources, _target = [word for word in line.split()[1:] if not word.startswith("--")]
            assert all((PROJECT_ROOT / source).exists() for source in sources), line
