"""ARCHITECTURE.md walks through real files."""

import re

import pytest

from deploy.embedded.child import PROJECT_ROOT

PATH = re.compile(r"`((?:[a-z_.]+/)+[A-Za-z_.]*|[A-Za-z_-]+\.(?:toml|yml|md))`")


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "README.md"])
def test_every_named_path_exists(document: str) -> None:
    named = set(PATH.findall((PROJECT_ROOT / document).read_text(encoding="utf-8")))
    assert len(named) > 3
    made_by_running = {".metering/", ".metering/up.env"}
    missing = [
        path for path in sorted(named - made_by_running) if not (PROJECT_ROOT / path).exists()
    ]
    assert missing == []
