"""A small round of the crash proof on engines of its own, as `metering verify` runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded.child import PROJECT_ROOT, clean_environment

pytestmark = pytest.mark.timeout(600)


def verify(*arguments: str) -> dict[str, Any]:
    """The command's JSON line; fails with all that it said unless it found everything right."""
    finished = subprocess.run(
        [sys.executable, "-m", "cli", "verify", *arguments],
        cwd=PROJECT_ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stderr}\n{finished.stdout}"
    figures: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def test_exact_through_every_kind_of_fault_once() -> None:
    figures = verify("--events", "20000", "--kills", "10", "--workers", "2", "--seed", "7")
    assert (figures["lost"], figures["duplicated"], figures["wrong"]) == (0, 0, 0)
    assert figures["input"] >= 20_000
    assert figures["rated"] > 15_000
    assert figures["duplicates"] > 0
    assert figures["dead_letters"] > 0
    assert figures["kills"] >= 5
    assert figures["zombies"] == 2
    assert figures["broker_restarts"] == figures["disks_lost"] == 1
    assert figures["replayed"] > 0
    assert figures["purchases"] >= 10
    for name in ("renewals", "refunds", "api_kills", "stripe_kills"):
        assert figures[name] > 0, name


def test_exact_when_engines_are_away_and_recovery_outlasts_the_request_timeout() -> None:
    figures = verify(
        *("--events", "4000", "--kills", "1", "--workers", "2", "--seed", "8"),
        *("--down", "5", "--slow-recovery", "9", "--request-timeout", "6"),
    )
    assert (figures["lost"], figures["duplicated"], figures["wrong"]) == (0, 0, 0)


def test_keep_asks_for_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    finished = subprocess.run(
        [sys.executable, "-m", "cli", "verify", "--keep", str(tmp_path)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 1
    assert "is not empty" in finished.stderr
