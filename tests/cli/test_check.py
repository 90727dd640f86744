"""`metering test`: the steps, what they are given, and the first failure."""

import subprocess
from typing import Any

import pytest

from cli import check as checking
from cli.errors import Failure
from deploy.embedded.child import PROJECT_ROOT
from tests.conftest import LONGEST_FIRST


def record_steps(monkeypatch: pytest.MonkeyPatch, failing: str = "") -> list[list[str]]:
    """Nothing is run; commands that hold the word fail."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        assert not [name for name in options["env"] if name.startswith("METERING_")]
        commands.append(command)
        return subprocess.CompletedProcess(command, 1 if failing in command else 0)

    monkeypatch.setattr(checking.subprocess, "run", run)
    return commands


def test_everything_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERING_KAFKA_BOOTSTRAP", "production:9092")
    commands = record_steps(monkeypatch)
    checking.check([])
    text = [" ".join(command) for command in commands]
    for word, command in zip(
        ("ruff format", "ruff check", "mypy", "lint-imports", "decisions", "pytest"),
        text,
        strict=True,
    ):
        assert word in command
    assert "--ignore=tests/decisions" in commands[-1], "what has been tested is not tested again"


def test_files_that_start_first_are_there() -> None:
    for name in LONGEST_FIRST:
        assert (PROJECT_ROOT / "tests" / name).is_file(), name


def test_the_first_failure_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = record_steps(monkeypatch, failing="mypy")
    with pytest.raises(Failure, match="types failed"):
        checking.check([])
    assert len(commands) == 3


def test_arguments_are_pytests(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = record_steps(monkeypatch)
    checking.check(["-k", "dedupe"])
    assert [command[-4:] for command in commands] == [["-m", "pytest", "-k", "dedupe"]]
