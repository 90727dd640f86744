"""The OpenAPI document as others use it: a generated client compiles and works, and every
operation says who may call it."""

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app, openapi
from api.options import ApiOptions
from api.web.document import TAGS
from schemas.settings import Settings
from tests.api.serving import Served, serving
from tests.conftest import MakeSettings

ROOT = Path(__file__).parents[2]
LOCK = Path(__file__).parent / "sdks" / "openapi-python-client.lock"
INSTALL_TIMEOUT_S = 240
# JSON is YAML. A file is no text to the generator, which knows no `text/csv`.
CONFIGURATION = {
    "post_hooks": [],
    "content_type_overrides": {"text/csv": "application/octet-stream"},
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi(Settings())


def generator() -> Path:
    """The generator in an environment of its own, kept for the next run: it wants another typer
    than the command does. Skips where the registry is away."""
    place = ROOT / ".runtime" / "openapi-python-client"
    program, stamp = place / "bin" / "openapi-python-client", place / LOCK.name
    if stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
        return program
    shutil.rmtree(place, ignore_errors=True)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed")
    for command in (
        (uv, "venv", "--quiet", "--python", sys.executable, place),
        (uv, "pip", "sync", "--quiet", "--require-hashes", "--python", place / "bin/python", LOCK),
    ):
        install = subprocess.run(
            command, capture_output=True, check=False, timeout=INSTALL_TIMEOUT_S
        )
        if install.returncode != 0:
            pytest.skip(f"the generator cannot be installed: {install.stderr[-300:]!r}")
    shutil.copy(LOCK, stamp)
    return program


@pytest.fixture(scope="module")
def package(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the client's package, which can be imported meanwhile."""
    place = tmp_path_factory.mktemp("client")
    (place / "openapi.json").write_text(json.dumps(document))
    (place / "configuration.json").write_text(json.dumps(CONFIGURATION))
    process = subprocess.run(
        [
            *(generator(), "generate", "--path", "openapi.json", "--config", "configuration.json"),
            *("--meta", "none", "--output-path", "generated_metering", "--fail-on-warning"),
        ],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_TIMEOUT_S,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    # Version 0.29.1 forgets this import where a body has several types and there is nothing else
    # that may be left out.
    for module in (place / "generated_metering" / "api").rglob("*.py"):
        code = module.read_text()
        module.write_text(
            code.replace("import Response, UNSET\n", "import Response, UNSET, Unset\n")
        )
    sys.path.insert(0, str(place))
    yield "generated_metering"
    sys.path.remove(str(place))


@pytest.fixture
def served(make_settings: MakeSettings) -> Iterator[Served]:
    with serving(make_settings()) as opened:
        yield opened


def test_every_module_of_the_generated_client_compiles(package: str) -> None:
    names = [
        module.name
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        )
    ]
    assert len(names) > 100
    for name in names:
        importlib.import_module(name)


def test_the_generated_client_works(package: str, served: Served) -> None:
    def part(name: str) -> Any:
        return importlib.import_module(f"{package}.{name}")

    with part("client").AuthenticatedClient(served.url, served.key("admin", "org_a")) as client:
        models = part("models")
        group = part("api.groups.v1_post_group").sync(
            "org_a", client=client, body=models.NewGroup(name="Research")
        )
        assert (group.name, group.configured_by) == ("Research", "api")
        again = part("api.groups.v1_post_group").sync(
            "org_a", client=client, body=models.NewGroup(name="Research")
        )
        assert isinstance(again, models.Error)
        assert again.error.code == "group_name_taken"
        created = part("api.members_and_websites.v1_post_member").sync(
            "org_a", client=client, body=models.NewMember(email="ann@example.com", name="Ann")
        )
        listed = part("api.usage_and_spend_cursors_shapes.teams_list_members").sync(client=client)
        assert [(one.id, one.email) for one in listed.team_members] == [
            (created.id, "ann@example.com")
        ]
        log = part("api.usage_and_spend_cursors_shapes.teams_list_audit").sync(
            client=client, event_types="add_user", start_time="1h"
        )
        assert [event.event_type for event in log.events] == ["add_user"]
        assert log.pagination.total_count == 1


def test_titles_are_unique(document: dict[str, Any]) -> None:
    titles = Counter(schema["title"] for schema in document["components"]["schemas"].values())
    assert [title for title, count in titles.items() if count > 1] == []
    assert set(titles) == set(document["components"]["schemas"])


def test_every_operation_says_who_may_call_it_and_where_it_belongs(
    document: dict[str, Any],
) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            is_open = path.startswith(("/health/", "/webhooks/")) or path == "/metrics"
            assert bool(operation["security"]) is not is_open, path
            assert set(operation["tags"]) <= set(TAGS), path


def test_the_server_is_the_public_address_or_wherever_the_document_is_from(
    document: dict[str, Any], make_settings: MakeSettings
) -> None:
    assert document["servers"] == [{"url": "/"}]
    options = ApiOptions(public_url="https://metering.example/api/")
    openapi = create_app(make_settings(), options).openapi()
    assert openapi["servers"] == [{"url": "https://metering.example/api"}]
