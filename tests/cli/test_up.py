"""`up --demo` as a whole: a report, a killed part, Ctrl-C, the data again, and `kill -9`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.__main__ import has_control_plane
from tests.cli.conftest import bare_environment
from tests.cli.running_up import RunningUp, all_gone

FIRST_REPORT_S = 60.0


def metering(data_dir: Path, *arguments: str) -> str:
    """What a command in another terminal prints."""
    outcome = subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        env={**bare_environment(), "METERING_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def events_of(data_dir: Path, source: str) -> int:
    """Rated events of the demo, as finance would count them."""
    from cli.configuration import UP_FILE
    from schemas.settings import Settings
    from warehouse.connection import connect

    options = {"_env_file": data_dir / UP_FILE}
    client = connect(Settings(**options))  # type: ignore[arg-type]
    try:
        found = client.query(
            "SELECT count() FROM usage_rated WHERE source = {source:String} AND revision = 0",
            parameters={"source": source},
        )
        return int(found.result_rows[0][0])
    finally:
        client.close()


def first_run(data_dir: Path) -> int:
    """Everything that one `up` is to do; the number of past events that it charged."""
    up = RunningUp(data_dir, "--demo")
    try:
        up.wait_for(r"up after \d+ s")
        up.wait_for(r"Editors", FIRST_REPORT_S)
        assert "METERING_CLICKHOUSE_PASSWORD" not in up.said
        second = RunningUp(data_dir)
        assert second.process.wait(30) == 1
        assert f"already (pid {up.process.pid})" in second.said
        assert "all is well" in metering(data_dir, "doctor")
        assert "no_price" in metering(data_dir, "dead-letters", "list")

        worker = up.child("cli worker")
        worker.kill()
        up.wait_for(r"worker ended \(killed by SIGKILL\); starting it again", 10)
        up.wait_for(r"worker is back", 30)
        live = events_of(data_dir, "demo/live")
        deadline = time.monotonic() + 30
        while events_of(data_dir, "demo/live") <= live:
            assert time.monotonic() < deadline, "nothing is charged after the restart"
            time.sleep(0.5)

        past = events_of(data_dir, "demo/past")
        children = up.children()
        assert len(children) == 5 + has_control_plane()
        assert up.interrupt() == 0, up.said
        assert "stopped; the data is in" in up.said
        assert all_gone(children)
        return past
    finally:
        up.end()


@pytest.mark.timeout(400)
def test_up_from_the_first_start_to_the_third(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    past = first_run(data_dir)
    assert past > 700

    # The next one continues; it is killed together with nothing of what it started left over.
    up = RunningUp(data_dir)
    try:
        up.wait_for(r"up after \d+ s")
        assert events_of(data_dir, "demo/past") == past
        children = up.children()
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait()
        assert all_gone(children)
    finally:
        up.end()

    up = RunningUp(data_dir)
    try:
        up.wait_for(r"up after \d+ s")
        assert events_of(data_dir, "demo/past") == past
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(60) == 0
    finally:
        up.end()


def test_stopped_while_it_starts(tmp_path: Path) -> None:
    up = RunningUp(tmp_path / "data")
    try:
        up.wait_for("starting Kafka")
        deadline = time.monotonic() + 10
        while not (children := up.children()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert up.interrupt() == 0, up.said
        assert all_gone(children)
    finally:
        up.end()
