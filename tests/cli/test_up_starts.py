"""Starts of `up` that are refused, stopped or killed, and one beside what an older release left."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.cli.conftest import RunCommand
from tests.cli.running_up import RunningUp, all_gone, metering, paste

NOT_IN_THE_DATABASE = (
    '{"organization_id":"org_acme","version":1,"recorded_at":"2026-01-01T00:00:00Z",'
    '"effective_at":"2026-01-01T00:00:00Z","fact":{"type":"organization_created"}}\n'
)


@pytest.mark.parametrize("port", ["99999", "0", "-1"])
def test_a_port_that_cannot_be_is_refused_at_once(run_command: RunCommand, port: str) -> None:
    outcome = run_command("up", "--kafka-port", port)
    assert outcome.returncode == 2
    assert "--kafka-port" in outcome.stderr


@pytest.mark.parametrize("line", ["starting Kafka", "creating topics"])
def test_a_killed_start_leaves_nothing_behind(tmp_path: Path, line: str) -> None:
    up = RunningUp(tmp_path / "data")
    try:
        up.wait_for(line)
        deadline = time.monotonic() + 30
        while not (children := up.children()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait()
        assert all_gone(children)
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


@pytest.mark.timeout(400)
def test_facts_of_an_older_release_are_imported_beside_it(tmp_path: Path) -> None:
    """Its organizations are in the topics, and not in the control plane's database."""
    data_dir = tmp_path / "data"
    up = RunningUp(data_dir)
    try:
        up.wait_for(r"continues with the data")
        listed, created = paste(up.said)
        assert json.loads(listed)["items"] == []
        assert json.loads(created)["id"] == "org_1"
        metering(data_dir, "emit", "-", "--topic", "memberships", stdin=NOT_IN_THE_DATABASE)
        assert up.interrupt() == 0
    finally:
        up.end()

    up = RunningUp(data_dir, "--demo")
    try:
        up.wait_for(r"control plane: The topic 'memberships' has version 1 .*fresh --data-dir\.")
        assert "demo: two organizations" not in up.said
        assert "1 facts of 1 organizations" in metering(data_dir, "facts", "import", "--yes")
        log = data_dir / "logs" / "api.log"
        deadline = time.monotonic() + 15
        while "publishing goes on" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        assert log.read_text().count("unknown organization in a topic") == 1
        assert up.interrupt() == 0
    finally:
        up.end()

    up = RunningUp(data_dir, "--demo")
    try:
        up.wait_for(r"demo: two organizations")
        assert "control plane:" not in up.said
        assert "all is well" in metering(data_dir, "doctor")
    finally:
        up.end()
