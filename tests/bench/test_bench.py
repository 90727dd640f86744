"""The benchmark measures every engine, says so in JSON, and does not believe a wrong result."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import __main__ as command
from bench.checking import Result, Row, decode_row, differences
from bench.floor import Order
from bench.latency import Latencies
from bench.profiling import report as report_profile
from bench.report import Report
from bench.sampling import BROKER, ENGINE, EngineEndedError, Measured, Memory, Sample, between
from bench.workload import OLD_NUMBER, Message, Totals, Workload
from schemas.records import RatedEvent
from streams.decisions.events import Limits, UsageEvent
from streams.decisions.facts import FactInput, decide_fact
from streams.decisions.intake import Intake
from streams.decisions.state import MemoryState, apply_changes
from streams.decisions.usage import UsageContext, apply_rated, decide_usage

ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 11, 1, tzinfo=UTC)
EVENTS = 3_000

WANTED = {
    "exact", "events_per_second", "cpu_seconds_per_million", "broker_cpu_seconds_per_million",
    "ratio_to_plain_faust", "ratio_to_floor", "cpu_ratio_to_floor", "peak_rss_mib",
    "peak_anonymous_mib", "peak_file_backed_mib", "queryable_events_per_second",
    "rated_p50_ms", "rated_p99_ms", "queryable_p50_ms", "queryable_p99_ms", "machine",
}  # fmt: skip


def new_workload(planned_events: int = EVENTS) -> Workload:
    return Workload(seed=1, planned_events=planned_events, organizations=20, partitions=4, at=AT)


def rate(workload: Workload, messages: list[Message]) -> Result:
    """What an engine without faults makes of the messages: the pipeline's own decisions."""
    state = MemoryState()
    for topic, facts in (
        ("memberships", workload.memberships()),
        ("credits", workload.credits()),
    ):
        for offset, fact in enumerate(facts):
            fact_input = FactInput(
                topic, fact.partition, offset, fact.key, fact.value, AT, fact.partition
            )
            outcome = decide_fact(fact_input, state)
            assert outcome.applied is not None, outcome
            apply_changes(state, outcome.changes)
    seen = {
        row.tobytes()[:16]
        for partition in range(workload.partitions)
        for row in workload.seen_rows(partition, 10)
    }
    intake, result = Intake(Limits()), Result()
    contexts = [UsageContext("usage", number, str, AT) for number in range(workload.partitions)]
    for offset, message in enumerate(messages):
        event = intake.parse(message.value, message.key, (), AT)
        assert isinstance(event, UsageEvent), event
        if event.identity in seen:
            continue
        seen.add(event.identity)
        rated = decide_usage(event, offset, state, contexts[message.partition])
        assert isinstance(rated, RatedEvent), rated
        apply_rated(rated, state)
        result.add(decode_row(msgspec.json.encode(rated)))
    return result


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert list(new_workload().events(50)) == list(new_workload().events(50))


def test_the_workload_reckons_what_the_decisions_decide() -> None:
    workload = new_workload()
    messages = list(workload.events(EVENTS))

    assert differences(workload.expected, rate(workload, messages)) == []

    numbers = [message.number for message in messages]
    assert any(number >= OLD_NUMBER for number in numbers), "none was seen before"
    assert len(set(numbers)) < len(numbers), "none came again"
    totals = workload.expected.totals.values()
    for part in ("website", "group", "overage"):
        assert sum(getattr(each, part) for each in totals) > 0, part
    assert 280 <= sum(len(message.value) for message in messages) / EVENTS <= 380


@pytest.mark.parametrize(
    ("tampered", "complaint"),
    [
        ({"cost_micro": 1, "overage_micro": 1}, "wrong sums"),
        ({"cost_micro": 1}, "do not add up"),
        ({"group_balance_micro": 1}, "wrong balances"),
        ({}, "rated twice"),
    ],
)
def test_a_tampered_row_is_found(tampered: dict[str, int], complaint: str) -> None:
    workload = new_workload()
    result = rate(workload, list(workload.events(EVENTS)))
    name = next(iter(result.totals))
    row = Row(name, "00000000-x", 0, "", "group_0", 0, 0, 0, 0, 0, 0)
    if "group_balance_micro" not in tampered:
        row.group_balance_micro = result.balances[(name, "group", "group_0")]
    else:
        row.group_balance_micro = result.balances[(name, "group", "group_0")] + 1
    for field, value in tampered.items():
        if field != "group_balance_micro":
            setattr(row, field, value)
    result.add(row)

    assert any(complaint in problem for problem in differences(workload.expected, result))


def test_a_lost_row_is_found() -> None:
    workload = new_workload()
    messages = list(workload.events(EVENTS))
    problems = differences(workload.expected, rate(workload, messages[:-1]))
    assert f"instead of {workload.expected.rated}" in problems[0]


def test_the_warm_up_is_not_counted() -> None:
    samples = [
        Sample(float(at), count, {ENGINE: cpu, BROKER: 0.0})
        for at, count, cpu in ((0, 0, 5.0), (9, 20, 8.0), (10, 60, 8.5), (11, 100, 9.0))
    ]
    measured = between(samples, Memory())
    assert (measured.events, measured.seconds, measured.cpu_s[ENGINE]) == (80, 2.0, 1.0)
    with pytest.raises(EngineEndedError):
        between(samples[:1], Memory())


def test_ratios_are_taken_slice_by_slice() -> None:
    def ran(seconds: float, cpu_s: float) -> Measured:
        return Measured(1_000, seconds, {ENGINE: cpu_s, BROKER: 1.0}, Memory(rss=10.0))

    report = Report(
        machine={},
        sizes={},
        measured={
            "worker": [ran(2, 2), ran(4, 4), ran(8, 8)],
            "floor": [ran(1, 1), ran(4, 4), ran(8, 8)],
        },
        latencies=Latencies([1.0, 2.0, 3.0], [4.0], 10.0),
        problems={"worker": ["3 rows instead of 4"]},
    )
    figures = report.figures()
    assert figures["ratio_to_floor"] == 1.0
    assert figures["cpu_ratio_to_floor"] == 1.0
    assert figures["rated_p50_ms"] == 2.0
    assert figures["exact"] is False
    assert figures["problems"] == {"worker": ["3 rows instead of 4"]}
    assert any("WRONG" in line and "3 rows" in line for line in report.lines())


def test_a_profile_is_summed_by_function(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = "run (a/b/c.py:1);epoll_pwait (libc.so.6) 9"
    report_profile(["run (a/b/c.py:1);decide (a/b/d.py:7) 3", "run (a/b/c.py:2) 1", waiting])
    printed = capsys.readouterr().out
    assert " 75.0%  decide (b/d.py)" in printed
    assert "100.0%  run (b/c.py)" in printed


def test_orders_survive_the_pipe() -> None:
    order = Order({"partitions": 4}, "out", "group", [1, 2, 3, 4])
    assert msgspec.json.decode(msgspec.json.encode(order), type=Order) == order


@pytest.mark.timeout(600)
def test_a_quick_run_measures_every_engine_exactly(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", "bench", "--quick"],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=550, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = json.loads(ended.stdout.splitlines()[-1])
    assert figures["exact"] is True
    assert figures.keys() >= WANTED
    assert all(figures[name] > 0 for name in WANTED - {"exact", "machine"})
    assert list(tmp_path.iterdir()) == [], "nothing is left where it was called"


@pytest.mark.timeout(300)
def test_a_tampered_result_is_reported_as_incorrect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = command.read_result

    async def tampered(*arguments: Any) -> Result:
        result = await honest(*arguments)
        name = min(result.totals)
        result.totals[name] = replace(result.totals[name], cost=result.totals[name].cost + 1)
        return result

    monkeypatch.setattr(command, "read_result", tampered)
    assert command.main(["--quick", "--only", "floor", "--seen", "1000"]) == 1
    *table, line = capsys.readouterr().out.splitlines()
    figures = json.loads(line)
    assert figures["exact"] is False
    assert "wrong sums" in figures["problems"]["floor"][0]
    assert any(row.startswith("floor") and row.endswith("WRONG") for row in table)


def test_totals_are_compared_by_every_field() -> None:
    assert Totals(1, 2, 1, 1, 0) != Totals(1, 2, 1, 0, 1)


def test_unknown_engines_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--only", "worker,magic"])
    assert "magic" in capsys.readouterr().err


def test_yesterday_is_within_the_limits_of_age() -> None:
    message = next(iter(new_workload().events(1)))
    parsed = Intake(Limits()).parse(message.value, message.key, (), AT + timedelta(days=1))
    assert isinstance(parsed, UsageEvent)
