"""The API as the benchmark runs it: what is asked of a large organization is answered right, and
with a stream worker a change by HTTP reaches the stamp of later usage."""

import asyncio
from pathlib import Path

from bench import purchases
from bench.api import measure_answers, running, with_worker
from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka


def test_the_benchmark_checks_answers_and_a_move_reaches_the_stamp(
    kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse, tmp_path: Path
) -> None:
    with running(kafka, clickhouse, tmp_path, groups=3, members=5, name="testapi") as place:
        answered_ms = asyncio.run(measure_answers(place, requests=2, groups=3, members=5))
        delays_ms = with_worker(place, tmp_path, changes=3)
    assert {name: len(times) for name, times in answered_ms.items()} == {
        "groups_table": 2,
        "groups_with_people": 2,
        "members": 2,
        "spend_by_member": 2,
    }
    assert len(delays_ms) == 3


def test_the_benchmark_of_purchases_checks_that_credits_can_be_spent(
    kafka: EmbeddedKafka, clickhouse: EmbeddedClickHouse, tmp_path: Path
) -> None:
    assert len(purchases.run(kafka, clickhouse, tmp_path, purchases=2)) == 2
