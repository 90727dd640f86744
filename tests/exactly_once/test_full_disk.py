"""A worker whose disk is full: it says so and ends, and goes on when there is room."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.exactly_once.runtime import EXIT_FAILED
from tests.exactly_once.harness import Counting
from tests.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Of worker `a`; its log is elsewhere."""
    with small_disk(tmp_path / "a", 16) as mounted:
        yield mounted


async def test_a_full_disk_is_said_in_a_line_and_loses_nothing(
    kafka: Any, tmp_path: Path, disk: SmallDisk
) -> None:
    prefix = f"f{random.randrange(10**9)}-"
    async with Counting(kafka.bootstrap, prefix, tmp_path, seed=13) as counting:
        counting.start("a")
        await counting.send_numbers(1_000)
        await counting.assert_exact()

        disk.fill()
        await counting.send_numbers(1_000)
        # What the transaction committed cannot be written: the process ends, by no signal (which a
        # mapped page without room on the disk would send).
        assert await counting.ended("a") == EXIT_FAILED
        (line,) = [line for line in counting.log_of("a").splitlines() if "worker ends" in line]
        assert "the disk is full" in line
        counting.start("a")
        assert await counting.ended("a") == EXIT_FAILED

        disk.make_room()
        counting.start("a")
        await counting.send_again(2_000)
        await counting.send_numbers(500)
        await counting.assert_exact()
