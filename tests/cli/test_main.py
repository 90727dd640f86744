"""What every command has in common: quick help, one clear line, the right exit code."""

import os
import socket
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from api.rules.keys import Scope
from api.storage.migrate import migrate
from api.storage.store import Store
from cli.__main__ import app
from cli.keys import SCOPES
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


def test_a_package_of_the_working_directory_is_not_taken_for_ours(
    run_command: RunCommand, tmp_path: Path
) -> None:
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "__init__.py").write_text("raise SystemExit('not ours')\n")
    assert run_command("--version").returncode == 0


@pytest.mark.parametrize("command", [("keys", "list"), ("groups", "list")])
def test_what_is_no_utf_8_is_said_in_words(
    run_command: RunCommand, command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / ".metering").mkdir()
    store = Store(f"sqlite:///{tmp_path / '.metering' / 'control-plane.sqlite'}")
    migrate(store)
    store.close()
    outcome = run_command(*command, "--organization", os.fsdecode(b"org_\xff"))
    assert outcome.returncode == 1
    assert outcome.stderr == "metering: 'org_\\udcff' is not UTF-8\n"


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


@pytest.mark.parametrize(
    "command",
    [
        ("topics", "create"),
        ("migrate",),
        ("emit", "-"),
        ("report", "spend", "-o", "org_1", "--period", "2026-11"),
        ("explain", "evt_1", "-o", "org_1"),
        ("dead-letters", "list"),
        ("groups", "list", "-o", "org_1"),
        ("keys", "list"),
        ("facts", "import", "--yes"),
        ("erase-member", "user_1", "-o", "org_1"),
    ],
)
def test_where_nothing_runs_every_command_says_so_alike(
    run_command: RunCommand, tmp_path: Path, command: tuple[str, ...]
) -> None:
    # An `up` that was here once, and stopped: nothing listens on port 1.
    data_dir = tmp_path / "stopped"
    data_dir.mkdir()
    lines = [f"{name}='{value}'\n" for name, value in NOWHERE.items()]
    (data_dir / "up.env").write_text("".join(lines))
    outcome = run_command(*command, "--data-dir", str(data_dir))
    assert outcome.returncode == 1
    assert outcome.stdout == ""
    assert outcome.stderr == (
        f"metering: Nothing runs here; start `./metering up` (looked in {data_dir}; "
        "METERING_DATA_DIR or --data-dir choose another one)\n"
    )
    assert not (data_dir / "control-plane.sqlite").exists()


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("keys", "create", "root"), "operator, admin, group_admin, finance, ingest, scim"),
        (("emit", "-", "--topic", "ledger"), "usage, memberships, credits"),
        (("generate", "--topic", "ledger"), "usage, memberships, credits"),
        (("report", "spend", "-o", "o", "--period", "November"), "2026-11-01..2026-11-15"),
        (("report", "spend", "-o", "o", "--period", "2026-11", "--by", "hour"), "'website'"),
        (("dead-letters", "list", "--reason", "bad"), "'no_price'"),
        (("dead-letters", "show", "evt_1"), "write it as 3:17"),
        (("dead-letters", "replay", "evt_1"), "write it as 3:17"),
    ],
)
def test_a_wrong_word_is_told_the_right_ones_before_any_server_is_asked(
    run_command: RunCommand, command: tuple[str, ...], names: str
) -> None:
    outcome = run_command(*command, environment=NOWHERE)
    assert outcome.returncode == 2
    said = " ".join(outcome.stderr.split())
    assert names in said
    assert "Value error" not in said


def test_every_command_takes_the_same_flags() -> None:
    commands = list(_commands(get_command(app), "metering"))
    for module in ("control_plane", "dead_letters", "explain", "facts_import", "groups", "keys"):
        commands += _commands(get_command(import_module(f"cli.{module}").app), module)
    for module in ("cli.report", "cli.verification.command", "cli.fuzzing.command"):
        commands += _commands(get_command(import_module(module).app), module)
    assert len(commands) > 30
    for name, command in commands:
        flags = {flag: option for option in command.params for flag in option.opts}
        if command.context_settings.get("ignore_unknown_options"):
            continue  # its own module reads the arguments
        assert "--data-dir" in flags, name
        assert command.context_settings["help_option_names"] == ["-h", "--help"], name
        if "organization" in {option.name for option in command.params}:
            assert flags.get("-o") is flags.get("--organization") is not None, name


@pytest.mark.parametrize("command", ["test", "fuzz", "verify", "bench"])
def test_commands_that_pass_their_arguments_on_have_help_too(
    run_command: RunCommand, command: str
) -> None:
    outcome = run_command(command, "-h")
    assert outcome.returncode == 0
    assert outcome.stdout.lower().startswith(f"usage: metering {command} ")


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("worker", "METERING_METRICS_PORT"),
        ("sink", "METERING_SINK_METRICS_PORT"),
        ("api", "METERING_API_PORT"),
    ],
)
def test_a_port_that_is_taken_is_told_with_the_setting_that_chooses_it(
    run_command: RunCommand, tmp_path: Path, command: str, variable: str
) -> None:
    database = f"sqlite:///{tmp_path / 'control-plane.sqlite'}"
    store = Store(database)
    migrate(store)
    store.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = {**NOWHERE, "METERING_DATABASE_URL": database, variable: str(port)}
        outcome = run_command(command, environment=environment)
    assert outcome.returncode not in (0, 3)
    said = outcome.stdout + outcome.stderr
    assert f"cannot listen at 127.0.0.1:{port} (Address already in use)" in said
    assert f"{variable} chooses another port" in said


def test_help_names_the_scopes_that_there_are() -> None:
    assert SCOPES.replace(" or ", ", ").split(", ") == list(Scope)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command below it, with its name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for below, sub in command.commands.items():
        yield from _commands(sub, f"{name} {below}")


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
    (data_dir / "control-plane.sqlite").touch()
    outcome = run_command("keys", "list")
    assert outcome.returncode == 1
    assert "is not migrated" in outcome.stderr


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
