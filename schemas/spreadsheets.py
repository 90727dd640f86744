"""How a text is written into a CSV, so that no spreadsheet takes it for a formula. Pure."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

FORMULA: Final = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How a formula begins, to whatever spreadsheet; apostrophes in front are counted, so that a name
that has one itself comes back with it."""


def guarded(text: str) -> str:
    """The text behind an apostrophe, where it would be a formula. Not for numbers."""
    return f"'{text}" if FORMULA.match(text) else text


def csv_lines(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as a part of a CSV, lines ending with a line feed."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
