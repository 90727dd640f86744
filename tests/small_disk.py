"""A disk of a few megabytes of its own, to be filled: a tmpfs, where this user may mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BALLAST = "ballast"
PIECE_BYTES = 4096


class SmallDisk:
    """Everything below `path` shares so many megabytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, leave_bytes: int = 0) -> None:
        """Until nothing more than this fits."""
        with (self.path / BALLAST).open("ab", buffering=0) as file:
            file.write(bytes(max(0, self.free_bytes() - leave_bytes)))
            if leave_bytes:
                return
            # What others have freed since.
            try:
                while file.write(bytes(PIECE_BYTES)):
                    pass
            except OSError:
                return

    def free_bytes(self) -> int:
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize

    def make_room(self) -> None:
        (self.path / BALLAST).unlink()


@contextmanager
def small_disk(path: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Skips the test where nothing may be mounted."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0755", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("a full disk needs a small one, and there is no mount here")
    if mounted.returncode != 0:
        pytest.skip(f"a full disk needs a small one, and mount says: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
