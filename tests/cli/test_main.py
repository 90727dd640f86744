"""What every command has in common: quick help, one clear line, the right exit code."""

import time
from pathlib import Path

import pytest

from tests.cli.conftest import RunCommand

NOWHERE = {
    "METERING_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "METERING_CLICKHOUSE_URL": "http://127.0.0.1:1",
}


def test_help_answers_at_once(run_command: RunCommand) -> None:
    run_command("--help")  # the files are in the page cache now
    started_s = time.monotonic()
    outcome = run_command("--help")
    assert time.monotonic() - started_s < 2.0  # 0.3 s on an idle machine
    assert outcome.returncode == 0
    for command in ("up", "worker", "sink", "topics", "migrate", "emit", "generate", "report"):
        assert command in outcome.stdout
    assert "demo-traffic" not in outcome.stdout


def test_version(run_command: RunCommand) -> None:
    assert run_command("--version").stdout.startswith("metering 0.")


@pytest.mark.parametrize(
    "command",
    [
        ("topics", "create"),
        ("migrate",),
        ("emit", "-"),
        ("dead-letters", "list"),
        ("dead-letters", "replay", "--all"),
    ],
)
def test_what_does_not_answer_is_one_line(
    run_command: RunCommand, command: tuple[str, ...]
) -> None:
    outcome = run_command(*command, environment=NOWHERE)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("metering: ")
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert outcome.stdout == ""


def test_a_traceback_only_for_debug(run_command: RunCommand) -> None:
    debug = {**NOWHERE, "METERING_LOG_LEVEL": "debug"}
    assert "Traceback" in run_command("migrate", environment=debug).stderr


def test_the_control_planes_commands_find_a_local_up(
    run_command: RunCommand, tmp_path: Path
) -> None:
    """They read the environment alone, so the file must have become part of it."""
    data_dir = tmp_path / ".metering"
    data_dir.mkdir()
    (data_dir / "up.env").write_text(f"METERING_DATA_DIR='{data_dir}'\n")
    assert run_command("migrate").returncode == 1  # ClickHouse does not run
    outcome = run_command("keys", "list")
    assert outcome.returncode == 1
    assert "is not migrated" in outcome.stderr
    assert (data_dir / "control-plane.sqlite").exists()


def test_wrong_settings_are_exit_code_two(run_command: RunCommand) -> None:
    for command in (("config",), ("worker",), ("sink",), ("doctor",)):
        outcome = run_command(*command, environment={"METERING_PARTITIONS": "many"})
        assert outcome.returncode == 2
        assert "METERING_PARTITIONS" in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1


def test_an_unknown_command_is_exit_code_two(run_command: RunCommand) -> None:
    outcome = run_command("nonsense")
    assert outcome.returncode == 2
    assert "nonsense" in outcome.stderr


def test_a_file_that_is_not_there(run_command: RunCommand, tmp_path: Path) -> None:
    outcome = run_command("emit", str(tmp_path / "absent.jsonl"))
    assert outcome.returncode == 1
    assert "cannot be read" in outcome.stderr


def test_config_masks_secrets_and_names_slips(run_command: RunCommand) -> None:
    outcome = run_command(
        "config",
        environment={
            "METERING_ALIAS_SECRET": "not-to-be-shown-to-anyone",
            "METERING_PARTITONS": "3",
        },
    )
    assert outcome.returncode == 0
    assert "not-to-be-shown" not in outcome.stdout
    assert "********" in outcome.stdout
    assert "did you mean METERING_PARTITIONS?" in outcome.stderr
