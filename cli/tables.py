"""Tables for people: columns under each other, one number of decimals in a column, a header
always. In a terminal that is too narrow each row becomes a block of lines instead.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

GAP: Final = "  "
INDENT: Final = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title; numbers stand to the right, everything else to the left."""

    title: str
    is_number: bool = False


def text(title: str) -> Column:
    return Column(title)


def number(title: str) -> Column:
    return Column(title, is_number=True)


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    total: Sequence[str] | None = None,
    width: int | None = None,
) -> list[str]:
    """The lines of a table; `total` is a last row behind a rule.

    `width` is the room in characters; by default that of the terminal, and endless where the
    output goes into a file or a pipe.
    """
    every_row = [list(row) for row in [*rows, *([total] if total else [])]]
    for index, column in enumerate(columns):
        if column.is_number:
            evened = _with_equal_decimals([row[index] for row in every_row])
            for row, cell in zip(every_row, evened, strict=True):
                row[index] = cell
    titles = [column.title for column in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *every_row, strict=True)]
    needed = sum(widths) + len(GAP) * (len(widths) - 1)
    if needed > (terminal_width() if width is None else width):
        return _blocks(titles, every_row, has_total=total is not None)
    rule = "-" * needed
    lines = [_line(columns, row, widths) for row in [titles, *every_row]]
    if total is None:
        return [lines[0], rule, *lines[1:]]
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def terminal_width() -> int:
    """Characters in a line of the terminal; endless where the output goes elsewhere."""
    if sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return sys.maxsize


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if column.is_number else cell.ljust(width)
        for column, cell, width in zip(columns, row, widths, strict=True)
    ]
    return GAP.join(cells).rstrip()


def _blocks(titles: Sequence[str], rows: Sequence[Sequence[str]], *, has_total: bool) -> list[str]:
    """Each row as its first cell and, below it, a line for each other one."""
    labels = max((len(title) for title in titles[1:]), default=0)
    lines: list[str] = [titles[0], "-" * len(titles[0])]
    for index, row in enumerate(rows):
        if has_total and index == len(rows) - 1:
            lines.append("-" * len(titles[0]))
        lines.append(row[0])
        lines += [
            f"{INDENT}{title.ljust(labels)}{GAP}{cell}".rstrip()
            for title, cell in zip(titles[1:], row[1:], strict=True)
        ]
    return lines


def _with_equal_decimals(cells: Sequence[str]) -> list[str]:
    """Exact decimals filled up with zeros to the longest of them; other texts as they are."""
    digits = max((len(cell.partition(".")[2]) for cell in cells if _is_decimal(cell)), default=0)
    return [
        cell + "0" * (digits - len(cell.partition(".")[2])) if _is_decimal(cell) else cell
        for cell in cells
    ]


def _is_decimal(cell: str) -> bool:
    whole, point, fraction = cell.partition(".")
    return bool(point) and fraction.isdigit() and whole.removeprefix("-").isdigit()
