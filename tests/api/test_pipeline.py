"""The API with a running stream worker: a change by HTTP reaches the stamp of later usage."""

from pathlib import Path

from bench.api import running, with_worker
from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka


def test_a_move_reaches_the_stamp(
    kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse, tmp_path: Path
) -> None:
    with running(kafka, clickhouse, tmp_path, groups=3, members=5, name="testapi") as place:
        delays_ms = with_worker(place, tmp_path, changes=3)
    assert len(delays_ms) == 3
