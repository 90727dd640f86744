"""Engine processes end when they should, and only then."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import psutil
import pytest

from deploy.embedded.child import ChildProcess, EngineError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
GONE_WITHIN_SECONDS = 5.0

PARENT = """
import sys, time
from pathlib import Path
from deploy.embedded.child import ChildProcess
child = ChildProcess("sleeper", Path(sys.argv[1]), die_with_parent=sys.argv[2] == "yes")
child.start([sys.executable, "-c", "import time; time.sleep(600)"], {})
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[ChildProcess]:
    child = ChildProcess("sleeper", tmp_path / "out", die_with_parent=True)
    yield child
    child.kill()


def _is_gone(pid: int) -> bool:
    deadline = time.monotonic() + GONE_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def _orphan(tmp_path: Path, die_with_parent: str) -> int:
    """The pid of an engine whose parent was killed with `kill -9`."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "out"), die_with_parent],
        stdout=subprocess.PIPE,
        cwd=PROJECT_ROOT,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    return pid


def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    assert _is_gone(_orphan(tmp_path, "yes"))


def test_a_child_may_be_allowed_to_outlive_its_parent(tmp_path: Path) -> None:
    pid = _orphan(tmp_path, "no")
    time.sleep(0.2)
    try:
        assert psutil.pid_exists(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_child_outlives_the_thread_that_started_it(child: ChildProcess) -> None:
    starter = Thread(target=child.start, args=(SLEEP, os.environ))
    starter.start()
    starter.join()
    time.sleep(0.3)
    assert child.is_running


def test_the_pid_is_that_of_the_command_itself(child: ChildProcess) -> None:
    child.start(SLEEP, os.environ)
    child.wait_until(lambda: child.output.read_text() == "up\n", 10)
    assert child.pid is not None
    assert "time.sleep(600)" in psutil.Process(child.pid).cmdline()[-1]


def test_stop_ends_it_cleanly_and_kill_does_not(child: ChildProcess) -> None:
    child.start(SLEEP, os.environ)
    child.stop(5)
    assert (child.exit_code, child.pid) == (-signal.SIGTERM, None)
    child.start(SLEEP, os.environ)
    child.kill()
    assert child.exit_code == -signal.SIGKILL


def test_stop_kills_what_ignores_it(child: ChildProcess) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    child.start([sys.executable, "-c", f"{deaf}; time.sleep(600)"], os.environ)
    child.wait_until(lambda: child.output.read_text() != "", 10)
    child.stop(0.2)
    assert child.exit_code == -signal.SIGKILL


def test_two_starts_are_refused(child: ChildProcess) -> None:
    child.start(SLEEP, os.environ)
    with pytest.raises(EngineError, match="is running already"):
        child.start(SLEEP, os.environ)


def test_a_command_that_ends_at_once_is_reported_with_its_output(child: ChildProcess) -> None:
    child.start([sys.executable, "-c", "raise SystemExit('no such disk')"], os.environ)
    with pytest.raises(EngineError, match=r"exit code 1[\s\S]*no such disk"):
        child.wait_until(lambda: False, 10)


def test_a_command_that_makes_no_progress_leaves_no_process(child: ChildProcess) -> None:
    child.start(SLEEP, os.environ)
    with pytest.raises(EngineError, match="no progress for"):
        child.wait_until(lambda: False, 1.0)
    assert not child.is_running


WRITING = "while True: print('still here', flush=True); time.sleep(0.05)"
WORKING = "while True: pass"


@pytest.mark.parametrize("slow", [WRITING, WORKING])
def test_a_start_that_takes_long_is_no_failure_while_it_makes_progress(
    child: ChildProcess, slow: str
) -> None:
    child.start([sys.executable, "-c", f"import time\n{slow}"], os.environ)
    ready_s = time.monotonic() + 4.0
    child.wait_until(lambda: time.monotonic() > ready_s, 1.0)
    assert child.is_running


def test_one_that_waits_for_somebody_else_is_waited_for(child: ChildProcess) -> None:
    child.start(SLEEP, os.environ)
    ready_s = time.monotonic() + 2.0
    child.wait_until(lambda: time.monotonic() > ready_s, 0.5, is_waiting=lambda: True)
    assert child.is_running


KAFKA_LOG = """\
2026-11-21T09:00:01.000Z WARN SomeClass something harmless
2026-11-21T09:00:02.000Z ERROR LogDirFailureChannel Error while appending records to usage-0
java.io.IOException: No space left on device
\tat java.base/sun.nio.ch.FileDispatcherImpl.write0(Native Method)
\tat java.base/java.lang.Thread.run(Thread.java:840)
2026-11-21T09:00:03.000Z ERROR LogManager Shutdown broker because all log dirs have failed
"""


def test_the_cause_is_said_whole_and_never_out_of_an_old_log(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    log.write_text("2026-11-20T01:00:00.000Z ERROR Old the port was taken\n")
    broker = ChildProcess("Kafka", tmp_path / "out", die_with_parent=True, logs=[log])
    writes = f"open({str(log)!r}, 'a').write({KAFKA_LOG!r}); raise SystemExit(1)"
    broker.start([sys.executable, "-c", writes], os.environ)
    with pytest.raises(EngineError) as refused:
        broker.wait_until(lambda: False, 30)
    assert str(refused.value) == (
        "Kafka ended with exit code 1: ERROR LogDirFailureChannel Error while appending records to "
        "usage-0 | java.io.IOException: No space left on device | ERROR LogManager Shutdown broker "
        f"because all log dirs have failed ({tmp_path / 'out'})"
    )


def test_a_command_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    bare = ChildProcess("ghost", tmp_path / "out", die_with_parent=False)
    with pytest.raises(FileNotFoundError):
        bare.start([str(tmp_path / "ghost")], os.environ)
