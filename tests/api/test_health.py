"""Whether the API is ready, part by part: it takes no events that it cannot deliver."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.embedded import EmbeddedKafka
from tests.api.serving import Served, serving
from tests.conftest import MakeSettings


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    broker = EmbeddedKafka(tmp_path)
    broker.start()
    yield broker
    broker.stop()


def ask(served: Served, part: str = "") -> httpx.Response:
    return httpx.get(f"{served.url}/health/ready{part}", timeout=30)


def test_it_is_not_ready_for_events_while_kafka_is_away(
    own_kafka: EmbeddedKafka, make_settings: MakeSettings
) -> None:
    with serving(make_settings(kafka_bootstrap=own_kafka.bootstrap)) as served:
        whole = ask(served)
        assert (whole.status_code, whole.json()) == (
            200,
            {"status": "ready", "control_plane": "ok", "events": "ok"},
        )
        own_kafka.kill()
        # What was asked a second ago may be told once more.
        while (whole := ask(served)).status_code == 200:
            pass
        assert whole.status_code == 503
        assert "Retry-After" in whole.headers
        error = whole.json()["error"]
        assert error["details"]["control_plane"] == "ok"
        assert own_kafka.bootstrap in error["details"]["events"]
        assert error["message"].startswith("Not ready: events: Kafka at ")
        assert ask(served, "/events").status_code == 503
        assert ask(served, "/control-plane").status_code == 200
        own_kafka.start()
        while ask(served, "/events").status_code == 503:
            pass
        assert ask(served).status_code == 200
