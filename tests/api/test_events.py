"""Ingestion by HTTP: what is taken is in the topic, and what is refused is not."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from schemas.settings import Settings
from streams.kafka import create_topics
from tests.api.serving import Served, serving
from tests.api.topic import read_all
from tests.conftest import MakeSettings

BATCH = {"Content-Type": "application/cloudevents-batch+json"}
STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=utf-8"}


def event(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "editor",
        "type": "ai.tokens",
        "subject": "ann",
        "time": datetime.now(UTC).isoformat(),
        "data": {"quantity": 5},
        **more,
    }


@pytest.fixture
def settings(make_settings: MakeSettings, kafka: object) -> Settings:
    own_settings = make_settings()
    asyncio.run(create_topics(own_settings))
    return own_settings


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    with serving(settings) as opened:
        yield opened


def usage(settings: Settings) -> list[tuple[bytes | None, bytes]]:
    return asyncio.run(read_all(settings, "usage"))


def test_one_structured_event(served: Served, settings: Settings) -> None:
    with served.client("ingest") as client:
        answer = client.post("/v1/events", content=json.dumps(event()), headers=STRUCTURED)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "refused": []})
    ((key, value),) = usage(settings)
    assert key == b"org_a"
    assert json.loads(value)["id"] == "e1"


def test_a_batch_says_what_was_refused(served: Served, settings: Settings) -> None:
    events = [
        event(1),
        event(2, data={"quantity": 1.5}),
        event(3, organizationid="org_b"),
        event(4, time="2020-01-01T00:00:00Z"),
        event(5, organizationid="org_a"),
    ]
    with served.client("ingest") as client:
        answer = client.post("/v1/events", content=json.dumps(events), headers=BATCH)
    assert answer.status_code == 207
    outcome = answer.json()
    assert outcome["accepted"] == 2
    assert [(one["index"], one["reason"]) for one in outcome["refused"]] == [
        (1, "float_quantity"),
        (2, "wrong_key"),
        (3, "too_old"),
    ]
    assert sorted(json.loads(value)["id"] for _, value in usage(settings)) == ["e1", "e5"]


def test_binary_mode(served: Served, settings: Settings) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "b1",
        "ce-source": "editor",
        "ce-type": "ai.tokens",
        "ce-subject": "ann",
        "Content-Type": "application/json",
    }
    with served.client("ingest") as client:
        answer = client.post("/v1/events", content=b'{"quantity":"1.5"}', headers=headers)
    assert answer.json()["accepted"] == 1
    ((_, value),) = usage(settings)
    assert value == b'{"quantity":"1.5"}'


def test_an_empty_batch_is_taken(served: Served, settings: Settings) -> None:
    with served.client("ingest") as client:
        answer = client.post("/v1/events", content=b"[]", headers=BATCH)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 0, "refused": []})
    assert usage(settings) == []


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", STRUCTURED),
        (b"{", STRUCTURED),
        (b"{}", BATCH),
        (b"[1,2]", BATCH),
        (b'[{"a":1}', BATCH),
        (b"\xff\xfe", {}),
        (b"[" * 100_000, BATCH),
        (json.dumps({"data": "x" * 70_000}).encode(), STRUCTURED),
    ],
    ids=["empty", "half", "object", "numbers", "cut", "bytes", "deep", "large"],
)
def test_what_is_no_event_is_refused(
    served: Served, settings: Settings, content: bytes, headers: dict[str, str]
) -> None:
    with served.client("ingest") as client:
        answer = client.post("/v1/events", content=content, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    assert usage(settings) == []


def test_a_platform_key_names_the_organization(served: Served, settings: Settings) -> None:
    events = [event(1, organizationid="org_b"), event(2), event(3, organizationid="org_x")]
    with served.client("ingest", None) as client:
        outcome = client.post("/v1/events", content=json.dumps(events), headers=BATCH).json()
    assert outcome["accepted"] == 1
    assert [one["reason"] for one in outcome["refused"]] == [
        "invalid_event",
        "unknown_organization",
    ]
    assert [key for key, _ in usage(settings)] == [b"org_b"]


def test_without_a_broker_nothing_is_accepted(make_settings: MakeSettings) -> None:
    with serving(make_settings(kafka_bootstrap="127.0.0.1:1")) as served:
        with served.client("ingest") as client:
            answer = client.post("/v1/events", content=json.dumps(event()), headers=STRUCTURED)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "not_acknowledged"
        assert int(answer.headers["Retry-After"]) >= 1


def test_back_pressure(settings: Settings) -> None:
    with serving(settings, ingest_waiting_max=2) as served, served.client("ingest") as client:
        events = json.dumps([event(number) for number in range(3)])
        answer = client.post("/v1/events", content=events, headers=BATCH)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "back_pressure"
        assert int(answer.headers["Retry-After"]) >= 1
        assert client.post("/v1/events", content=json.dumps(event()), headers=STRUCTURED).is_success
    assert len(usage(settings)) == 1


def test_other_keys_may_not_ingest(served: Served) -> None:
    for scope in ("admin", "finance", "operator"):
        with served.client(scope) as client:
            answer = client.post("/v1/events", json=event())
            assert answer.status_code == 403
    assert httpx.post(f"{served.url}/v1/events", json=event()).status_code == 401
