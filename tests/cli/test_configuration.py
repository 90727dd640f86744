"""Environment beats file beats default; the `up` of the data directory is found by itself."""

import os
from pathlib import Path

import pytest

from cli.api import load_options
from cli.configuration import (
    Setting,
    data_directory,
    effective,
    explicit_variables,
    load_settings,
    nothing_runs_here,
    unknown_variables,
)
from cli.errors import Failure
from deploy.embedded.child import PROJECT_ROOT
from schemas.settings import Settings
from tests.cli.conftest import RunCommand


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No METERING_ variable but the data directory's, which is an empty one."""
    for field in Settings.model_fields:
        monkeypatch.delenv(f"METERING_{field.upper()}", raising=False)
    monkeypatch.delenv("METERING_CONFIG_FILE", raising=False)
    monkeypatch.setenv("METERING_DATA_DIR", str(tmp_path / ".metering"))
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.mark.usefixtures("bare")
def test_defaults_are_valid() -> None:
    assert load_settings().partitions == 8


def test_the_environment_beats_the_file(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "production.env"
    file.write_text("METERING_PARTITIONS=3\nMETERING_APP_ID='from-file'\n")
    bare.setenv("METERING_CONFIG_FILE", str(file))
    bare.setenv("METERING_PARTITIONS", "5")
    settings = load_settings()
    assert (settings.partitions, settings.app_id) == (5, "from-file")
    sources = {row.variable: row.source for row in effective(settings)}
    assert sources["METERING_PARTITIONS"] == "environment"
    assert sources["METERING_APP_ID"] == str(file)
    assert sources["METERING_COMPRESSION"] == "default"


def test_a_running_up_is_found_by_its_data_directory(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    for directory, port in ((tmp_path / ".metering", 1111), (elsewhere, 2222)):
        directory.mkdir()
        (directory / "up.env").write_text(f"METERING_KAFKA_BOOTSTRAP=127.0.0.1:{port}\n")
    assert load_settings().kafka_bootstrap == "127.0.0.1:1111"
    bare.setenv("METERING_DATA_DIR", str(elsewhere))
    assert load_settings().kafka_bootstrap == "127.0.0.1:2222"


def test_the_default_data_directory_is_the_same_from_anywhere(bare: pytest.MonkeyPatch) -> None:
    bare.delenv("METERING_DATA_DIR")
    assert data_directory() == load_settings().data_dir == PROJECT_ROOT / ".metering"
    bare.chdir("/")
    assert data_directory() == load_settings().data_dir == PROJECT_ROOT / ".metering"


def test_an_up_that_runs_is_told_from_one_that_ran(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = tmp_path / ".metering"
    assert str(directory) in nothing_runs_here()
    directory.mkdir()
    (directory / "up.env").write_text("METERING_KAFKA_BOOTSTRAP=127.0.0.1:1111\n")
    (directory / "up.lock").write_text(f"{os.getpid()}\n")
    assert nothing_runs_here() == ""
    (directory / "up.lock").write_text("999999999\n")
    assert nothing_runs_here()
    # What a command took over from the file was not said by its user.
    bare.setenv("METERING_KAFKA_BOOTSTRAP", "127.0.0.1:1111")
    assert nothing_runs_here()
    bare.setenv("METERING_KAFKA_BOOTSTRAP", "kafka.example:9092")
    assert nothing_runs_here() == ""


@pytest.mark.parametrize("variable", ["METERING_KAFKA_BOOTSTRAP", "METERING_CLICKHOUSE_URL"])
def test_a_process_with_addresses_ignores_a_local_up(
    bare: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    (tmp_path / ".metering").mkdir()
    (tmp_path / ".metering" / "up.env").write_text("METERING_APP_ID=local\n")
    bare.setenv(variable, "http://example:1" if "URL" in variable else "example:1")
    assert load_settings().app_id == "metering"


def test_a_missing_file_is_said(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.setenv("METERING_CONFIG_FILE", str(tmp_path / "absent"))
    with pytest.raises(Failure, match="which is no file") as failure:
        load_settings()
    assert failure.value.exit_code == 2


def test_all_complaints_in_one_line_without_secrets(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("METERING_PARTITIONS", "0")
    bare.setenv("METERING_ALIAS_SECRET", "short-secret")
    with pytest.raises(Failure) as failure:
        load_settings()
    text = str(failure.value)
    assert "METERING_PARTITIONS" in text
    assert "METERING_ALIAS_SECRET: needs at least 16 characters" in text
    assert "short-secret" not in text
    assert "\n" not in text


def test_settings_that_contradict_each_other(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("METERING_DEDUPE_WINDOW_DAYS", "10")
    with pytest.raises(Failure, match="charged twice"):
        load_settings()


def test_unknown_variables_are_named() -> None:
    assert unknown_variables({"METERING_APP_ID": "x", "PATH": "y"}) == []
    assert "nothing reads it" in unknown_variables({"METERING_XYZZY": "1"})[0]
    assert unknown_variables({"METERING_API_PORT": "1", "METERING_API_URL": "http://x"}) == []
    (slip,) = unknown_variables({"METERING_API_PROT": "1"})
    assert "did you mean METERING_API_PORT?" in slip


def test_a_password_in_an_address_is_masked(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("METERING_DATABASE_URL", "postgresql://metering:hush:hush@db:5432/metering")
    rows = {row.variable: row.value for row in effective(load_settings())}
    assert rows["METERING_DATABASE_URL"] == "postgresql://metering:********@db:5432/metering"


def test_a_password_in_a_query_string_is_masked(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("METERING_DATABASE_URL", "postgresql://db/metering?sslmode=require&password=hush")
    bare.setenv("METERING_CLICKHOUSE_URL", "https://ch:8443/?user=me&x-token=hush#a")
    rows = {row.variable: row.value for row in effective(load_settings())}
    masked = "postgresql://db/metering?sslmode=require&password=********"
    assert rows["METERING_DATABASE_URL"] == masked
    assert "hush" not in rows["METERING_CLICKHOUSE_URL"]


@pytest.mark.usefixtures("bare")
def test_options_of_the_api_are_shown_too(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("METERING_API_PORT", "1234")
    rows = {row.variable: row for row in effective(load_settings(), load_options())}
    assert rows["METERING_API_PORT"] == Setting("METERING_API_PORT", "1234", "environment")
    assert rows["METERING_API_PUBLISH"] == Setting("METERING_API_PUBLISH", "true", "default")


def test_they_stand_in_a_table_with_a_header(run_command: RunCommand, tmp_path: Path) -> None:
    data_dir = tmp_path / ("a-directory-with-a-long-name" * 2)
    lines = run_command("config", "--data-dir", str(data_dir)).stdout.splitlines()
    assert lines[0].split() == ["Variable", "Value", "From"]
    source_column = lines[0].index("From")
    assert {line[source_column - 2 : source_column] for line in lines[2:]} == {"  "}
    assert {line[source_column:] for line in lines[2:]} <= {"default", "environment"}


def test_what_up_passes_on_is_what_was_said(tmp_path: Path) -> None:
    file = tmp_path / "tuned.env"
    file.write_text("METERING_PARTITIONS=3\nMETERING_LOG_LEVEL='warning'\nOTHER=1\n")
    environment = {
        "METERING_CONFIG_FILE": str(file),
        "METERING_PARTITIONS": "5",
        "PATH": "x",
    }
    assert explicit_variables(environment) == {
        "METERING_PARTITIONS": "5",
        "METERING_LOG_LEVEL": "warning",
    }


def test_secrets_of_stripe_are_masked(run_command: RunCommand) -> None:
    key, secret = "sk_" + "test_hush", "whsec_" + "hush_hush"
    variables = {"METERING_STRIPE_API_KEY": key, "METERING_STRIPE_WEBHOOK_SECRET": secret}
    shown = run_command("config", environment=variables)
    assert shown.returncode == 0, shown.stderr
    assert "hush" not in shown.stdout
    wrong = run_command("config", environment=variables | {"METERING_STRIPE_API_KEY": "hush"})
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("metering: wrong settings: METERING_STRIPE_API_KEY: no secret")
    assert "hush" not in wrong.stderr
