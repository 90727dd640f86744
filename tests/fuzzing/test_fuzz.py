"""A small round of `metering fuzz`, with the corpus."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.embedded.child import PROJECT_ROOT, clean_environment

CORPUS = Path(__file__).with_name("corpus.jsonl")
COMMAND = [sys.executable, "-m", "cli", "fuzz"]


@pytest.mark.timeout(600)
def test_whatever_is_sent_stops_nothing_and_every_record_is_accounted_for() -> None:
    finished = subprocess.run(
        [*COMMAND, "--records", "3000", "--seed", "8", "--corpus", str(CORPUS)],
        cwd=PROJECT_ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stderr}\n{finished.stdout}"
    figures = json.loads(finished.stdout.splitlines()[-1])
    assert (figures["lost"], figures["duplicated"], figures["wrong"]) == (0, 0, 0)
    assert figures["sent"] >= 3_000
    for name in ("rated", "duplicates", "dead_letters", "forwarded", "facts_applied"):
        assert figures[name] > 0, name
    assert figures["sent"] + figures["forwarded"] == figures["records"]
