"""`up --demo` as a whole: report, keys, a killed part, Ctrl-C, the data again, and `kill -9`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.embedded.child import clean_environment
from deploy.embedded.ports import free_port
from tests.cli.conftest import RunCommand
from tests.cli.running_up import RunningUp, all_gone

FIRST_REPORT_S = 60.0
PAST_EVENTS = 792
"""What has a price of the demo's past usage, both organizations together."""
NOT_IN_THE_DATABASE = (
    '{"organization_id":"org_acme","version":1,"recorded_at":"2026-01-01T00:00:00Z",'
    '"effective_at":"2026-01-01T00:00:00Z","fact":{"type":"organization_created"}}\n'
)


def metering(data_dir: Path, *arguments: str, stdin: str = "") -> str:
    """What a command in another terminal prints."""
    outcome = subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        env=clean_environment({"METERING_DATA_DIR": str(data_dir)}),
        input=stdin,
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
        result = client.query(
            "SELECT count() FROM usage_rated WHERE source = {source:String} AND revision = 0",
            parameters={"source": source},
        )
        return int(result.result_rows[0][0])
    finally:
        client.close()


def paste(said: str) -> list[str]:
    """What the lines print that `up` offers for HTTP and SQL, those of the API as JSON."""
    lines = said.partition("by HTTP")[2].partition("Ctrl-C")[0].partition("\n")[2]
    outcome = subprocess.run(
        ["/bin/bash", "-ec", lines], capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.splitlines()


def names_of_groups(answer: str) -> list[str]:
    return [group["name"] for group in json.loads(answer)["groups"]]


def cut_short(data_dir: Path) -> None:
    """A first start that is killed while it sends the past usage."""
    up = RunningUp(data_dir, "--demo")
    try:
        up.wait_for(r"demo: two organizations")
        children = up.children()
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait()
        assert all_gone(children)
    finally:
        up.end()


def first_run(data_dir: Path) -> None:
    """Everything that one `up` is to do."""
    up = RunningUp(data_dir, "--demo")
    try:
        up.wait_for(r"up after \d+ s")
        up.wait_for(r"Editors", FIRST_REPORT_S)
        assert "METERING_CLICKHOUSE_PASSWORD" not in up.said
        second = RunningUp(data_dir)
        assert second.process.wait(30) == 1
        assert f"already (pid {up.process.pid})" in second.said
        assert "all is well" in metering(data_dir, "doctor")
        groups, created, table, *by_finance = paste(up.said)
        assert names_of_groups(groups) == ["Editors", "Marketing", "Research"]
        assert json.loads(created)["group"]["name"] == "Design"
        spent = {group["name"]: group["spend_micro"] for group in json.loads(table)["items"]}
        assert set(spent) == {"Design", "Editors", "Marketing", "Research"}
        assert spent["Editors"] > 0
        assert "Editors" in "".join(by_finance)
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

        # Both come back, each in its own time: the worker waits for the broker, nobody for it.
        worker, broker = up.child("cli worker"), up.child("kafka.Kafka")
        worker.kill()
        broker.kill()
        up.wait_for(r"Kafka is back", 60)
        up.wait_for(r"worker is back[\s\S]*worker is back", 60)

        assert events_of(data_dir, "demo/past") == PAST_EVENTS
        children = up.children()
        assert len(children) == 6
        assert up.interrupt() == 0, up.said
        assert "stopped; the data is in" in up.said
        assert all_gone(children)
    finally:
        up.end()


@pytest.mark.timeout(400)
def test_up_from_the_first_start_to_the_last(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    cut_short(data_dir)
    first_run(data_dir)

    # The next one continues; it is killed together with nothing of what it started left over.
    up = RunningUp(data_dir, "--demo")
    try:
        up.wait_for(r"Editors")
        assert events_of(data_dir, "demo/past") == PAST_EVENTS
        assert names_of_groups(paste(up.said)[0]) == [
            "Design",
            "Editors",
            "Marketing",
            "Research",
        ]
        children = up.children()
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait()
        assert all_gone(children)
    finally:
        up.end()

    up = RunningUp(data_dir)
    try:
        up.wait_for(r"up after \d+ s")
        assert events_of(data_dir, "demo/past") == PAST_EVENTS
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(60) == 0
    finally:
        up.end()


def test_configured_ports_hold_for_it_too(tmp_path: Path) -> None:
    port = free_port()
    up = RunningUp(tmp_path / "data", METERING_API_PORT=str(port))
    try:
        up.wait_for(rf"http://127.0.0.1:{port}/docs")
        # Killed before all is set up, or after: nothing is left.
        children = up.children()
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait()
        assert all_gone(children)
    finally:
        up.end()


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
