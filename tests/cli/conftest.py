"""Commands as people run them: in a process of their own, with METERING_ variables."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from deploy.embedded.child import clean_environment
from schemas.settings import Settings

RunCommand = Callable[..., "subprocess.CompletedProcess[str]"]


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that give these settings."""
    variables = {}
    for field in Settings.model_fields:
        value = getattr(settings, field)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text is not None:
            variables[f"METERING_{field.upper()}"] = str(text)
    return variables


@pytest.fixture
def run_command(tmp_path: Path) -> RunCommand:
    """`python -m cli …` in an empty directory, which is also where its data directory would be;
    output and exit code."""

    def run(
        *arguments: str,
        settings: Settings | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> "subprocess.CompletedProcess[str]":
        variables = environment_of(settings) if settings is not None else {}
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=tmp_path,
            env={
                **clean_environment({"METERING_DATA_DIR": str(tmp_path / ".metering")}),
                **variables,
                **(environment or {}),
            },
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
