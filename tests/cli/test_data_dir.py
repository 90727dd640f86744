"""The data directory of `up`: one at a time, ports and secrets kept, secrets private."""

import os
import socket
import stat
from pathlib import Path

import pytest

from cli.errors import Failure
from cli.up.data_dir import PORTS, DataDirectory


def test_a_second_one_is_told_who_has_it(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path)
    first.lock()
    with pytest.raises(Failure, match=rf"running on .* already \(pid {os.getpid()}\)"):
        DataDirectory(tmp_path).lock()
    first.unlock()
    second = DataDirectory(tmp_path)
    second.lock()
    second.unlock()


def test_ports_are_kept(tmp_path: Path) -> None:
    chosen, changes = DataDirectory(tmp_path).ports({})
    assert set(chosen) == set(PORTS)
    assert len(set(chosen.values())) == len(PORTS)
    assert changes == []
    assert DataDirectory(tmp_path).ports({}) == (chosen, [])


def test_a_kept_port_that_is_taken_changes_and_is_said(tmp_path: Path) -> None:
    chosen, _ = DataDirectory(tmp_path).ports({})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", chosen["kafka"]))
        taken.listen()
        again, changes = DataDirectory(tmp_path).ports({})
    assert again["kafka"] != chosen["kafka"]
    assert again["clickhouse"] == chosen["clickhouse"]
    assert "(kafka) is taken" in changes[0]


def test_a_given_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Failure, match="is taken: choose another"):
            DataDirectory(tmp_path).ports({"kafka": taken.getsockname()[1]})


def test_the_alias_secret_is_made_once_and_private(tmp_path: Path) -> None:
    secret = DataDirectory(tmp_path).alias_secret()
    assert len(secret) >= 32
    assert DataDirectory(tmp_path).alias_secret() == secret
    settings = DataDirectory(tmp_path).write_settings({"METERING_ALIAS_SECRET": "it's $HOME"})
    for file in (tmp_path / "secrets.json", settings):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_damaged_secrets_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(Failure, match="damaged"):
        DataDirectory(tmp_path).alias_secret()


def test_the_former_log_is_kept(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    log = directory.log("worker")
    log.parent.mkdir()
    log.write_text("what happened")
    assert directory.log("worker") == log
    assert log.with_suffix(".log.1").read_text() == "what happened"
