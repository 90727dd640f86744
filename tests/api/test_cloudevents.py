"""CloudEvents in their three modes: however an event is sent, it is one event and one charge."""

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from api.ingest import attribute_bytes
from schemas.records import MICRO, OrganizationCreated, PriceSet, RatedEvent
from schemas.settings import Settings
from streams.decisions.outcomes import Rejected
from streams.kafka import create_topics
from tests.api.serving import Served, serving
from tests.api.test_events import BATCH, STRUCTURED
from tests.api.topic import read_records
from tests.conftest import MakeSettings
from tests.decisions.worker import Worker


@pytest.fixture
def settings(make_settings: MakeSettings, kafka: object) -> Settings:
    own_settings = make_settings()
    asyncio.run(create_topics(own_settings))
    return own_settings


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    with serving(settings) as opened:
        yield opened


@pytest.mark.parametrize(
    ("header", "attribute"),
    [
        ("editor", b"editor"),
        ("50%25%20off", b"50% off"),
        ("gr%C3%B6%C3%9Fer", "größer".encode()),
        ("%F0%9F%98%80", "😀".encode()),
        ("%e2%82%ac", "€".encode()),
        ("100%", b"100%"),
        ("%zz", b"%zz"),
        ("%2541", b"%41"),
        ('"a \\"quoted\\" %41"', b'a "quoted" A'),
        ('a "part"', b'a "part"'),
        ("grö", "grö".encode()),
        ("grÃ¶", "grö".encode()),
        ("gr%F6", b"gr\xf6"),
    ],
)
def test_headers_of_binary_mode_are_decoded(header: str, attribute: bytes) -> None:
    assert attribute_bytes(header) == attribute


def test_every_mode_of_one_event_is_one_charge(served: Served, settings: Settings) -> None:
    names = {"id": "größer 100%", "source": "editor/é", "type": "ai.tokens", "subject": "user_42"}
    time = datetime.now(UTC).isoformat()
    headers = {f"ce-{name}": quote(text, safe="/") for name, text in names.items()}
    headers |= {"ce-specversion": "1.0", "ce-time": time, "Content-Type": "application/json"}
    data = json.dumps({"quantity": 5, "website_id": "größer"})
    base = names | {"specversion": "1.0", "time": time}
    structured = json.dumps(base | {"data": json.loads(data)})
    encoded = json.dumps(base | {"data_base64": base64.b64encode(data.encode()).decode()})
    with served.client("ingest") as client:
        for content, sent in (
            (data, headers),
            (structured, STRUCTURED),
            (encoded, STRUCTURED),
            (f"[{structured},{encoded}]", BATCH),
        ):
            answer = client.post("/v1/events", content=content, headers=sent)
            assert answer.status_code == 200, answer.text
    (row,) = charged(settings, records=5)
    assert (row.event_id, row.source) == ("größer 100%", "editor/é")


def charged(settings: Settings, *, records: int) -> list[RatedEvent]:
    """What the worker's decisions charge for all that is in the topic, none of which is refused."""
    worker = Worker(now=datetime.now(UTC) - timedelta(days=3))
    for fact in (OrganizationCreated(), PriceSet("ai.tokens", MICRO)):
        assert worker.publish(fact, org="org_a").applied is not None
    worker.now = datetime.now(UTC)
    sent = asyncio.run(read_records(settings, "usage"))
    assert len(sent) == records
    for record in sent:
        assert not isinstance(worker.receive(record.value, record.key, record.headers), Rejected)
    return worker.rated
