"""A partition for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streams.partition import Partition


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[Partition]:
    fresh = Partition(tmp_path)
    yield fresh
    fresh.store.close()
