"""A damaged disk, a deleted topic, a wrong clock: nothing is counted twice, nothing lost."""

import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.exactly_once.harness import PARTITIONS, Counting

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def counting(kafka: Any, tmp_path: Path) -> AsyncIterator[Counting]:
    prefix = f"d{random.randrange(10**9)}-"
    async with Counting(kafka.bootstrap, prefix, tmp_path, seed=12) as running:
        yield running


def flip(content: bytes) -> bytes:
    return bytes(each ^ 0xFF for each in content)


def one(directory: Path, pattern: str) -> Path:
    (path,) = directory.glob(pattern)
    return path


def damage_each_otherwise(directory: Path) -> None:
    """Four partitions: seen ids gone, or half of their pages; RocksDB's list of files, or data."""
    shutil.rmtree(directory / "p00000" / "seen")
    with one(directory, "p00001/seen/*.seen").open("r+b") as file:
        for at in range(4096, (1 << 16) * 24, 8192):
            file.seek(at)
            file.write(bytes(4096))
    manifest = one(directory, "p00002/state/MANIFEST-*")
    manifest.write_bytes(flip(manifest.read_bytes()))
    for data in (directory / "p00003" / "state").glob("*.sst"):
        content = data.read_bytes()
        data.write_bytes(flip(content[:100]) + content[100:])


async def test_a_damaged_store_is_rebuilt_and_ends_nothing(counting: Counting) -> None:
    counting.start("a")
    await counting.send_numbers(4_000)
    await counting.assert_exact()
    counting.stop("a")
    damage_each_otherwise(counting.directory_of("a"))
    counting.start("a")
    process = counting.workers["a"]
    await counting.send_again(4_000)
    await counting.send_numbers(500)
    await counting.assert_exact()
    assert counting.workers["a"] is process
    assert counting.log_of("a").count("local store discarded") == PARTITIONS


async def test_a_jump_of_the_clock_forgets_no_seen_id(counting: Counting) -> None:
    clock = counting.directory_of("a").with_suffix(".clock")
    counting.start("a")
    await counting.send_numbers(2_000)
    await counting.assert_exact()
    clock.write_text("120")
    await counting.send_numbers(500)
    await counting.assert_exact()
    clock.unlink()
    await counting.send_again(2_500)
    await counting.send_numbers(500)
    await counting.assert_exact()


async def test_state_that_was_created_again_is_not_gone_on_with(counting: Counting) -> None:
    counting.start("a")
    await counting.send_numbers(300, duplicates=0)
    await counting.assert_exact()
    counting.stop("a")
    await counting.create_again("counting-state")
    counting.start("a")
    assert await counting.ended("a") == 2
    lines = [line for line in counting.log_of("a").splitlines() if "worker ends" in line]
    assert "counting-state says nothing of how far the inputs were read" in lines[-1]
    assert "Bring back the topics as they were" in lines[-1]
    del counting.workers["a"]
    await counting.assert_exact()
