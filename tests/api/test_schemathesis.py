"""Schemathesis against the OpenAPI document: whatever is sent, answers are as documented."""

import asyncio
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import openapi
from api.web.gate import is_open
from schemas.settings import Settings
from streams.kafka import create_topics
from tests.api.serving import serving
from tests.conftest import clickhouse_settings
from warehouse.migrations import migrate as migrate_warehouse

EXAMPLES = 8
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def operations() -> list[tuple[str, str]]:
    document = openapi(Settings())
    return [
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if not is_open(path)
    ]


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    engine = request.getfixturevalue("clickhouse")
    settings = Settings(
        kafka_bootstrap=request.getfixturevalue("kafka").bootstrap,
        topic_prefix="schemathesis.",
        partitions=1,
        data_dir=tmp_path_factory.mktemp("schemathesis"),
        clickhouse_database="schemathesis",
        **clickhouse_settings(engine),
    )
    asyncio.run(create_topics(settings))
    migrate_warehouse(settings)
    with serving(settings, usage_rate_per_minute=100_000) as opened:
        yield opened


@pytest.fixture(scope="module")
def keys(served: Any) -> dict[str, str]:
    return {
        "teams": served.key("admin", "org_a"),
        "scim": served.key("scim", "org_a"),
        "v1": served.key("operator"),
        "api": served.key("finance", "org_a"),
        "/v1/events": served.key("ingest", "org_a"),
    }


@pytest.mark.parametrize(("method", "path"), operations(), ids=lambda text: text)
def test_answers_are_as_documented(
    served: Any, keys: dict[str, str], method: str, path: str
) -> None:
    schema = schemathesis.openapi.from_dict(openapi(Settings()))
    schema.config.update(base_url=served.url)
    key = keys.get(path) or keys[path.split("/")[1]]
    headers = {"Authorization": f"Bearer {key}"}

    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy())
    def probe(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS)

    probe()
