"""`./metering`: at once when set up, one clear line when it cannot be set up.

The set-up itself installs packages and is tried on clean checkouts by hand and in CI.
"""

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[2]
INPUTS = (
    "requirements.lock",
    "deploy/bootstrap.lock",
    "deploy/embedded/jvm.lock",
    "deploy/embedded/pom.xml",
)
ECHO = '#!/bin/sh\nprintf "%s|" "$PYTHONPATH" "$@"\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that is set up, with a Python that only prints what it is asked to run."""
    root = tmp_path / "a checkout"
    for name in ("metering", *INPUTS):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / name, root / name)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(ECHO)
    python.chmod(0o755)
    together = b"".join((root / name).read_bytes() for name in INPUTS)
    (root / ".venv" / ".metering-ready").write_text(f"{hashlib.sha256(together).hexdigest()}  -\n")
    return root


def _run(
    command: Path, *arguments: str, cwd: Path, path: str | None = None
) -> "subprocess.CompletedProcess[str]":
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        [str(command), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_arguments_are_passed_on_from_anywhere(checkout: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(checkout / "metering")
    outcome = _run(link, "emit", "two words", "", "--x=*", cwd=Path("/"))
    assert outcome.stdout == f"{checkout}|-m|cli|emit|two words||--x=*|"
    assert outcome.stderr == ""


def test_nothing_is_done_twice(checkout: Path) -> None:
    _run(checkout / "metering", cwd=checkout)
    started = time.perf_counter()
    _run(checkout / "metering", cwd=checkout)
    # Measured: 20 ms; the bound leaves room for a busy machine.
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("changed", INPUTS)
def test_a_changed_lock_sets_up_again(checkout: Path, changed: str) -> None:
    with (checkout / changed).open("a") as lock:
        lock.write("\n")
    outcome = _run(checkout / "metering", "up", cwd=checkout)
    assert "installing" in outcome.stderr


def test_no_python_is_one_clear_line(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv" / ".metering-ready").unlink()
    (checkout / ".venv" / "bin" / "python").unlink()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "dirname", "env", "flock", "mkdir", "readlink", "rm", "sha256sum"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    outcome = _run(checkout / "metering", "up", cwd=checkout, path=str(tools))
    assert outcome.returncode == 1
    assert outcome.stderr == (
        "metering: Python 3.11 to 3.14 is needed (Debian 12, Ubuntu 24.04: python3)\n"
    )
