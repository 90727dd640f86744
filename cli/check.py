"""`metering test`: everything that must hold, in the order of how fast it fails."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from cli.errors import Failure
from deploy.embedded.child import PROJECT_ROOT, clean_environment

DECISIONS: Final = "tests/decisions"

SIDE_BY_SIDE: Final = ("--numprocesses=3", "--dist=loadfile", "--no-loadscope-reorder")
"""Three processes, each with a broker and a ClickHouse of its own, take one file after the other in
the order of `tests/conftest.py`. They are more than two cores because most tests wait for an engine
or a process half of the time; each takes about 1.5 GB of memory with what it starts."""

DECISIONS_COVERAGE: Final = (
    "--quiet",
    "--cov=streams.decisions",
    "--cov=api.payments.settlement",
    "--cov=api.payments.monthly",
    "--cov=api.payments.entitlement",
    "--cov-branch",
    "--cov-fail-under=100",
    "--cov-report=term-missing:skip-covered",
    DECISIONS,
    "tests/payments/test_settlement.py",
    "tests/payments/test_settlement_months.py",
)


def check(pytest_arguments: list[str]) -> None:
    """Run all checks and raise `Failure` naming the first that fails.

    With arguments only pytest runs, with them: that is for working on something.
    """
    # The decisions have been tested by then, for their coverage.
    everything_else = (*SIDE_BY_SIDE, f"--ignore={DECISIONS}")
    tests = [sys.executable, "-m", "pytest", *(pytest_arguments or everything_else)]
    steps = [] if pytest_arguments else _static_steps()
    for name, command in [*steps, ("pytest", tests)]:
        started_s = time.monotonic()
        sys.stderr.write(f"── {name}\n")
        sys.stderr.flush()
        outcome = subprocess.run(command, cwd=PROJECT_ROOT, env=_environment(), check=False)
        if outcome.returncode != 0:
            raise Failure(f"{name} failed ({' '.join(command)})", outcome.returncode)
        sys.stderr.write(f"   {time.monotonic() - started_s:.0f} s\n")


def _static_steps() -> list[tuple[str, list[str]]]:
    python = sys.executable
    return [
        ("formatting", [python, "-m", "ruff", "format", "--check", "--quiet", "."]),
        ("lint", [python, "-m", "ruff", "check", "--quiet", "."]),
        ("types", [python, "-m", "mypy"]),
        ("import directions", [str(Path(python).with_name("lint-imports"))]),
        ("every branch of the decisions", [python, "-m", "pytest", *DECISIONS_COVERAGE]),
    ]


def _environment() -> dict[str, str]:
    """Without what is configured for a pipeline: tests bring their own settings."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return clean_environment({"PATH": path})
