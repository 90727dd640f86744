"""`up --demo` as a whole: report, keys, a killed part, Ctrl-C, the data again, and `kill -9`."""

import json
import os
import re
import signal
import time
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values

from cli.configuration import ADMIN_KEY, API_URL, UP_FILE
from deploy.embedded.ports import free_port
from tests.cli.running_up import RunningUp, all_gone, metering, paste

FIRST_REPORT_S = 60.0
PAST_EVENTS = 792
"""What has a price of the demo's past usage, both organizations together."""


def events_of(data_dir: Path, source: str) -> int:
    """Rated events of the demo, as finance would count them."""
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


def names_of_groups(answer: str) -> list[str]:
    return [group["name"] for group in json.loads(answer)["groups"]]


def wait_until_paid(data_dir: Path, wanted: list[tuple[str, int]]) -> None:
    """Until the group that buys has paid for these kinds and numbers of packages."""
    left_by_up = dotenv_values(data_dir / UP_FILE)
    url = f"{left_by_up[API_URL]}/v1/organizations/org_acme/groups/group_editors/purchases"
    auth = (str(left_by_up[ADMIN_KEY]), "")
    deadline = time.monotonic() + 30
    while True:
        items = httpx.get(url, auth=auth, trust_env=False).json()["items"]
        paid = [item for item in items if item["state"] == "paid"]
        if sorted((item["kind"], item["quantity"]) for item in paid) == wanted:
            return
        assert time.monotonic() < deadline, items
        time.sleep(0.2)


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
        groups, created, table, checkout, billing, *by_finance = paste(up.said)
        assert names_of_groups(groups) == ["Editors", "Marketing", "Research"]
        assert json.loads(created)["group"]["name"] == "Design"
        spent = {group["name"]: group["spend_micro"] for group in json.loads(table)["items"]}
        assert set(spent) == {"Design", "Editors", "Marketing", "Research"}
        assert spent["Editors"] > 0
        assert "Editors" in "".join(by_finance)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/c/pay/cs_test_\w+", checkout)
        assert json.loads(billing)["profile"]["provider"] == "stripe"
        wait_until_paid(data_dir, [("monthly", 1), ("one_time", 2), ("one_time", 2)])
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
        assert len(children) == 8
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

    port = free_port()
    up = RunningUp(data_dir, METERING_API_PORT=str(port))
    try:
        up.wait_for(rf"http://127.0.0.1:{port}/docs")
        assert events_of(data_dir, "demo/past") == PAST_EVENTS
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(60) == 0
    finally:
        up.end()
