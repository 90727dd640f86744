"""Reads what a process has written since its last start, and finds in it why the process failed.

A log is appended to over many starts, and what a former process wrote would explain nothing.
"""

import re
from collections.abc import Sequence
from pathlib import Path

READ_BYTES_MAX = 200_000
LAST_LINES = 3
CAUSES_MAX = 4
LINE_CHARACTERS_MAX = 1_500
SEVERE = re.compile(
    r"\b(FATAL|ERROR|CRITICAL|critical|error)\b|(Error|Exception)\b|Caused by:|^metering: "
)
PLACE_IN_CODE = re.compile(r'^\s+(at |File "|\^|~|\.\.\. \d+ more)|^Traceback ')
STAMP = re.compile(r"^\S*\d{4}-\d\d-\d\d[T ]\S+\s*")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Logs:
    """Files that a process appends to, each from where it ended at the last `mark`."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._begins = dict.fromkeys(paths, 0)

    def mark(self) -> None:
        """What is written from here on counts."""
        self._begins = {path: _size(path) for path in self._paths}

    @property
    def sizes(self) -> list[int]:
        return [_size(path) for path in self._paths]

    def why(self) -> str:
        """What went wrong, on one line; what was written last where nothing says so; else empty."""
        lines = [line for path in self._paths for line in self._lines(path)]
        severe = list(dict.fromkeys(_bare(line) for line in lines if SEVERE.search(line)))
        if len(severe) > CAUSES_MAX:
            # The first error of a chain is the cause, the last one only its consequence.
            severe = [*severe[: CAUSES_MAX - 1], severe[-1]]
        return " | ".join(severe or [_bare(line) for line in lines[-LAST_LINES:]])

    def _lines(self, path: Path) -> list[str]:
        size = _size(path)
        # A log that is shorter than it was has been turned over, and is all new.
        begin = self._begins[path] if self._begins[path] <= size else 0
        try:
            with path.open("rb") as file:
                file.seek(max(begin, size - READ_BYTES_MAX))
                text = file.read(READ_BYTES_MAX).decode("utf-8", "replace")
        except OSError:
            return []
        lines = COLOURS.sub("", text).splitlines()
        return [line for line in lines if line.strip() and not PLACE_IN_CODE.match(line)]


def _bare(line: str) -> str:
    """Without its time: the same complaint is said once."""
    return " ".join(STAMP.sub("", line).split())[:LINE_CHARACTERS_MAX]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
