"""Restarts: said once, with growing pauses; everything stopped in reverse order."""

import os
import signal
from dataclasses import dataclass

import pytest

from cli.up import supervisor as supervising
from cli.up.supervisor import (
    LONGEST_PAUSE_S,
    StopRequested,
    Supervisor,
    stopping_on_signals,
)
from deploy.embedded.child import EngineError


@dataclass
class FakePart:
    """Runs until told otherwise; `failures` starts fail first."""

    events: list[str]
    name: str = "part"
    failures: int = 0
    is_running: bool = False
    exit_code: int | None = None
    pid: int | None = 1
    starts: int = 0

    def start(self) -> None:
        self.starts += 1
        if self.failures:
            self.failures -= 1
            raise EngineError(f"{self.name} did not start")
        self.is_running = True
        self.events.append(f"start {self.name}")

    def stop(self) -> None:
        self.is_running = False
        self.events.append(f"stop {self.name}")

    def end(self, exit_code: int) -> None:
        self.is_running, self.exit_code = False, exit_code


@dataclass
class FakeClock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock()
    monkeypatch.setattr(supervising.time, "sleep", made.sleep)
    return made


def test_an_ended_part_is_restarted_and_said_once(clock: FakeClock) -> None:
    said: list[str] = []
    part = FakePart([])
    supervisor = Supervisor(said.append, clock)
    supervisor.start("worker", part, lambda: "the disk is full")
    part.end(1)
    part.failures = 2
    supervisor.watch(20)
    assert part.is_running
    assert part.starts == 4
    assert said == [
        "worker ended (exit code 1); starting it again",
        "  it said: the disk is full",
        "worker is back (pid 1)",
    ]


def test_what_was_killed_has_not_said_why(clock: FakeClock) -> None:
    said: list[str] = []
    part = FakePart([])
    supervisor = Supervisor(said.append, clock)
    supervisor.start("worker", part, lambda: "all is well")
    part.end(-signal.SIGKILL)
    supervisor.watch(1)
    assert said == [
        "worker ended (killed by SIGKILL); starting it again",
        "worker is back (pid 1)",
    ]


def test_pauses_grow_up_to_a_limit(clock: FakeClock) -> None:
    part = FakePart([])
    supervisor = Supervisor(lambda _: None, clock)
    supervisor.start("worker", part)
    part.end(1)
    part.failures = 1_000
    supervisor.watch(600)
    # 0.5, 1, 2, 4, 8, 16, 30, 30 …: about 25 in ten minutes, not thousands.
    assert 600 / LONGEST_PAUSE_S < part.starts < 600 / LONGEST_PAUSE_S + 10


def test_a_part_that_ended_at_once_waits_longer_each_time(clock: FakeClock) -> None:
    part = FakePart([])
    supervisor = Supervisor(lambda _: None, clock)
    supervisor.start("worker", part)
    for _ in range(300):
        part.end(1)
        supervisor.watch(1)
    assert part.starts < 25


def test_all_stop_in_reverse_order_also_when_one_never_started() -> None:
    events: list[str] = []
    supervisor = Supervisor(lambda _: None)
    supervisor.start("Kafka", FakePart(events, "Kafka"))
    supervisor.start("worker", FakePart(events, "worker"))
    with pytest.raises(EngineError):
        supervisor.start("sink", FakePart(events, "sink", failures=1))
    supervisor.stop()
    assert events[2:] == ["stop sink", "stop worker", "stop Kafka"]
    supervisor.stop()
    assert len(events) == 5


def test_the_first_signal_is_raised_and_the_second_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping_on_signals():
        with pytest.raises(StopRequested):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
