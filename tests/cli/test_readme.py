"""README tells the truth: its commands are run, its table is compared with Settings.

`METERING_README_UPDATE=1` writes what was printed into README instead of comparing.
"""

import os
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from schemas.settings import Settings
from tests.cli.conftest import ROOT, bare_environment
from tests.cli.readme import Terminal, blocks, normalised, with_outputs
from tests.cli.running_up import RunningUp

README = ROOT / "README.md"
UPDATE = "METERING_README_UPDATE"


@pytest.mark.timeout(400)
def test_the_commands_print_what_it_says(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    up = RunningUp(tmp_path / "data", "--demo")
    try:
        up.wait_for(r"up after \d+ s")
        environment = {**bare_environment(), "METERING_DATA_DIR": str(up.data_dir)}
        terminal = Terminal(tmp_path, environment)
        examples = [example for block in blocks(text) for example in block]
        printed = [terminal.run(example) for example in examples]
        up.interrupt()
    finally:
        up.end()
    if os.environ.get(UPDATE):
        README.write_text(with_outputs(text, printed), encoding="utf-8")
        return
    for example, output in zip(examples, printed, strict=True):
        assert normalised(output) == normalised(example.output), example.command


def test_the_configuration_table_is_that_of_settings() -> None:
    rows = re.findall(r"^\| `(METERING_\w+)` \| (?:`([^`]*)`)? ?\|", README.read_text(), re.M)
    expected = [(f"METERING_{name.upper()}", _default(name)) for name in Settings.model_fields]
    assert rows == expected


def test_every_command_is_described() -> None:
    from cli.__main__ import app

    described = README.read_text(encoding="utf-8").partition("## Commands")[2]
    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        if not command.hidden and name not in {
            "erase-member",
            "api",
            "groups",
            "keys",
            "facts",
        }:
            assert f"`{name}" in described, name


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    return "" if default is None else str(default)
