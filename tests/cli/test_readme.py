"""README tells the truth: its commands are run, its table is compared with Settings.

`METERING_README_UPDATE=1` writes what was printed into README instead of comparing.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from api.options import ApiOptions, PaymentOptions
from cli import credits, facts_import, groups, keys
from cli.__main__ import app
from deploy.embedded.child import PROJECT_ROOT, clean_environment
from schemas.settings import DEFAULT_DATA_DIR, Settings
from tests.cli.readme import Terminal, blocks, normalized, script, with_outputs
from tests.cli.running_up import RunningUp

README = PROJECT_ROOT / "README.md"
WALK = PROJECT_ROOT / "docs" / "walk.sh"
UPDATE = "METERING_README_UPDATE"


@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl (package `curl`)")
def test_the_commands_print_what_it_says(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    up = RunningUp(tmp_path / "data", "--demo")
    try:
        up.wait_for(r"up after \d+ s")
        environment = clean_environment({"METERING_DATA_DIR": str(up.data_dir)})
        terminal = Terminal(tmp_path, environment)
        examples = [example for block in blocks(text) for example in block]
        try:
            printed = [terminal.run(example) for example in examples]
        finally:
            terminal.close()
        up.interrupt()
    finally:
        up.end()
    if os.environ.get(UPDATE):
        README.write_text(with_outputs(text, printed), encoding="utf-8")
        WALK.write_text(script(text), encoding="utf-8")
        return
    for example, output in zip(examples, printed, strict=True):
        assert normalized(output) == normalized(example.output), example.command


def test_the_walk_as_one_script_has_the_same_commands() -> None:
    assert WALK.read_text(encoding="utf-8") == script(README.read_text(encoding="utf-8"))


def test_the_walk_begins_only_where_something_runs(tmp_path: Path) -> None:
    variables = {**os.environ, "METERING_DATA_DIR": str(tmp_path)}
    for left_by_up in ("", "METERING_API_URL='http://127.0.0.1:1'\n"):
        (tmp_path / "up.env").write_text(left_by_up)
        outcome = subprocess.run(
            ["bash", WALK], env=variables, capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 1
        assert outcome.stdout == ""
        assert outcome.stderr.startswith("Nothing runs here: start ./metering up --demo")


def test_the_configuration_table_is_that_of_settings_and_options() -> None:
    rows = re.findall(r"^\| `(METERING_\w+)` \| (?:`([^`]*)`)? ?\|", README.read_text(), re.M)
    expected = [
        (f"{prefix}{name.upper()}", _default(field))
        for prefix, model in (
            ("METERING_", Settings),
            ("METERING_API_", ApiOptions),
            ("METERING_STRIPE_", PaymentOptions),
        )
        for name, field in model.model_fields.items()
    ]
    assert rows == expected


def test_every_command_is_described() -> None:
    described = README.read_text(encoding="utf-8").partition("## Commands")[2]
    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert command.hidden or f"`{name}" in described, name
    for group, part in (
        ("groups", groups.app),
        ("keys", keys.app),
        ("facts", facts_import.app),
        ("credits", credits.app),
    ):
        rows = " ".join(re.findall(rf"^\| .*`{group} .*$", described, re.M))
        for command in part.registered_commands:
            name = command.name or command.callback.__name__  # type: ignore[union-attr]
            assert re.search(rf"\b{name}\b", rows), f"{group} {name}"


def _default(field: FieldInfo) -> str:
    default = field.default
    if default == DEFAULT_DATA_DIR:
        return DEFAULT_DATA_DIR.name
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)
