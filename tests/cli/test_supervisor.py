"""Restarts: each part in its own time, said with their causes; all stopped in reverse order."""

import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, get_ident

import pytest

from cli.up.supervisor import (
    LONGEST_PAUSE_S,
    Keeper,
    StopRequested,
    Supervisor,
    stopping_on_signals,
)
from deploy.embedded.child import EngineError

WITHIN_S = 20.0


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
    cause: str = ""
    on_start: Callable[[], object] = lambda: None

    def why(self) -> str:
        return self.cause

    def start(self) -> None:
        self.starts += 1
        self.on_start()
        if self.failures:
            self.failures -= 1
            raise EngineError(f"exit code 1: {self.cause}")
        self.is_running = True
        self.events.append(f"start {self.name}")

    def stop(self) -> None:
        self.is_running = False
        self.events.append(f"stop {self.name}")

    def end(self, exit_code: int) -> None:
        self.is_running, self.exit_code = False, exit_code


@dataclass
class FakeClock:
    """Time passes only by waiting, and ends."""

    now_s: float = 0.0
    until_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> bool:
        self.now_s += seconds
        return self.now_s > self.until_s


def keep(part: FakePart, said: list[str], clock: FakeClock) -> Keeper:
    part.start()
    return Keeper("worker", part, said.append, clock.wait, clock)


def go_on(keeper: Keeper, clock: FakeClock, seconds: float) -> None:
    clock.until_s = clock.now_s + seconds
    keeper.keep()


def test_an_ended_part_is_restarted_and_said_with_its_cause() -> None:
    said: list[str] = []
    part, clock = FakePart([], cause="No space left on device" + "!" * 600), FakeClock()
    keeper = keep(part, said, clock)
    part.end(1)
    part.failures = 2
    go_on(keeper, clock, 20)
    assert part.is_running
    assert part.starts == 4
    assert said == [
        f"worker ended (exit code 1: {part.cause}); starting it again",
        f"worker does not start: exit code 1: {part.cause}",
        "worker is back (pid 1)",
    ]


def test_causes_that_take_turns_are_said_once_each() -> None:
    said: list[str] = []
    part, clock = FakePart([]), FakeClock()
    keeper = keep(part, said, clock)
    causes = itertools.cycle(("full", "killed"))
    part.on_start = lambda: setattr(part, "cause", next(causes))
    part.end(1)
    part.failures = 6
    go_on(keeper, clock, 200)
    assert said[1:] == [
        "worker does not start: exit code 1: full",
        "worker does not start: exit code 1: killed",
        "worker is back (pid 1)",
    ]


def test_circumstances_that_a_part_cannot_write_down_are_said_beside_it() -> None:
    said: list[str] = []
    part, clock = FakePart([]), FakeClock()
    keeper = keep(part, said, clock)
    keeper.circumstances = lambda: "the disk is full"
    part.end(1)
    part.failures = 2
    go_on(keeper, clock, 20)
    assert [line.endswith("; the disk is full") for line in said] == [True, True, False]


def test_what_was_killed_has_not_said_why() -> None:
    said: list[str] = []
    part, clock = FakePart([], cause="all is well"), FakeClock()
    keeper = keep(part, said, clock)
    part.end(-signal.SIGKILL)
    go_on(keeper, clock, 1)
    assert said == [
        "worker ended (killed by SIGKILL); starting it again",
        "worker is back (pid 1)",
    ]


def test_pauses_grow_up_to_a_limit() -> None:
    part, clock = FakePart([]), FakeClock()
    keeper = keep(part, [], clock)
    part.end(1)
    part.failures = 1_000
    go_on(keeper, clock, 600)
    # 0.5, 1, 2, 4, 8, 16, 30, 30 …: about 25 in ten minutes, not thousands.
    assert 600 / LONGEST_PAUSE_S < part.starts < 600 / LONGEST_PAUSE_S + 10


def test_a_part_that_ended_at_once_waits_longer_each_time() -> None:
    part, clock = FakePart([]), FakeClock()
    keeper = keep(part, [], clock)
    part.on_start = lambda: None
    for _ in range(300):
        part.end(1)
        go_on(keeper, clock, 1)
    assert part.starts < 25


def test_a_part_that_takes_long_holds_up_no_other() -> None:
    """The broker comes back while the worker is being started, which waits for the broker."""
    said: list[str] = []
    broker_is_up = Event()
    broker, worker = FakePart([]), FakePart([])
    supervisor = Supervisor(said.append)
    supervisor.start("worker", worker)
    supervisor.start("Kafka", broker)
    broker.on_start = broker_is_up.set
    worker.on_start = lambda: broker_is_up.wait(WITHIN_S)
    worker.end(1)
    time.sleep(1.0)
    broker.end(1)
    deadline = time.monotonic() + WITHIN_S
    while "worker is back (pid 1)" not in said or "Kafka is back (pid 1)" not in said:
        assert time.monotonic() < deadline, said
        supervisor.watch(0.1)
    assert said.index("Kafka is back (pid 1)") < said.index("worker is back (pid 1)")
    supervisor.stop()


def test_what_is_being_started_again_is_stopped_too() -> None:
    starting, part = Event(), FakePart([])
    supervisor = Supervisor(lambda _: None)
    supervisor.start("worker", part)
    part.on_start = lambda: (starting.set(), time.sleep(0.5))
    part.end(1)
    assert starting.wait(WITHIN_S)
    supervisor.stop()
    assert not part.is_running


def test_a_bug_of_the_supervisor_is_not_swallowed() -> None:
    part, main = FakePart([]), get_ident()

    def break_in_the_thread() -> None:
        if get_ident() != main:
            raise ZeroDivisionError

    part.on_start = break_in_the_thread
    supervisor = Supervisor(lambda _: None)
    supervisor.start("worker", part)
    part.end(1)
    with pytest.raises(ZeroDivisionError):
        supervisor.watch(WITHIN_S)
    supervisor.stop()


def test_all_stop_in_reverse_order_also_when_one_never_started() -> None:
    events: list[str] = []
    supervisor = Supervisor(lambda _: None)
    supervisor.start("Kafka", FakePart(events, "Kafka"))
    supervisor.start("worker", FakePart(events, "worker"))
    with pytest.raises(EngineError):
        supervisor.start("sink", FakePart(events, "sink", failures=1))
    supervisor.stop()
    stopped = [event for event in dict.fromkeys(events) if event.startswith("stop")]
    assert stopped == ["stop sink", "stop worker", "stop Kafka"]
    count = len(events)
    supervisor.stop()
    assert len(events) == count


def test_the_first_signal_is_raised_and_the_second_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping_on_signals():
        with pytest.raises(StopRequested):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
