"""A partition for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streams.partition import Partition


@pytest.fixture
def partition(tmp_path: Path) -> Iterator[Partition]:
    made = Partition(tmp_path)
    yield made
    made.store.close()
