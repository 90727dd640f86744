"""The data directory of `up`: one at a time, ports and secrets kept, secrets private."""

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

from cli.errors import Failure
from cli.up.data_dir import PORTS, DataDirectory
from tests.small_disk import small_disk


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
        with pytest.raises(Failure, match="is taken: --kafka-port chooses another"):
            DataDirectory(tmp_path).ports({"kafka": taken.getsockname()[1]})


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        directory = DataDirectory(disk.path)
        assert directory.shortage() == ""
        disk.fill()
        assert directory.shortage() == f"the disk of {disk.path} is full: make room"


def test_it_is_private(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.lock()
    assert directory.path.stat().st_mode & 0o777 == 0o700
    directory.unlock()


def test_the_alias_secret_is_made_once_and_private(tmp_path: Path) -> None:
    secret = DataDirectory(tmp_path).alias_secret()
    assert len(secret) >= 32
    assert DataDirectory(tmp_path).alias_secret() == secret
    odd = 'a $HOME of "16" or # more; `or` none'
    settings = DataDirectory(tmp_path).write_settings({"METERING_ALIAS_SECRET": odd})
    assert dotenv_values(settings) == {"METERING_ALIAS_SECRET": odd}
    shell = f'. {settings} && printf %s "$METERING_ALIAS_SECRET"'
    assert subprocess.run(["/bin/sh", "-c", shell], capture_output=True).stdout.decode() == odd
    for file in (tmp_path / "secrets.json", settings):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("value", ["it's", "${HOME}", "back\\slash"])
def test_what_a_shell_would_read_differently_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(Failure, match="METERING_APP_ID"):
        DataDirectory(tmp_path).write_settings({"METERING_APP_ID": value})


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
