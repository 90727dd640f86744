"""CSV of groups and members as text: reading a file, and writing one that reads back the same.

A cell that a spreadsheet would take for a formula is written behind an apostrophe, and read without
it. `csv_plans` says what a file does.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from api.errors import invalid
from schemas.spreadsheets import FORMULA, guarded

ROWS_MAX: Final = 100_000
FIELD_CHARACTERS_MAX: Final = 1_000
REQUIRED_COLUMNS: Final = ("group", "email")
MEMBER_ID: Final = "member_id"
"""A column that may be missing: the exact id of a member, for those without an address too."""
COLUMNS: Final = (*REQUIRED_COLUMNS, MEMBER_ID)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file; `line` counts from 1, the header included."""

    line: int
    group: str
    email: str
    member_id: str = ""


def read_rows(raw: bytes) -> list[Row]:
    """The rows of a file. Raises Refused (400) where it is no such file or too long."""
    reader = csv.reader(io.StringIO(_decoded(raw), newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        group_at, email_at, id_at = _columns(header)
        for fields in reader:
            if not fields or not any(one.strip() for one in fields):
                continue
            if len(rows) >= ROWS_MAX:
                raise invalid(f"A file has at most {ROWS_MAX} rows.", "file", "Split the file.")
            if len(fields) != len(header):
                raise invalid(
                    f"There are {len(fields)} fields where the header has {len(header)}.",
                    f"line {reader.line_num}",
                )
            if max(map(len, fields)) > FIELD_CHARACTERS_MAX:
                raise invalid("A field is too long.", f"line {reader.line_num}")
            member_id = "" if id_at is None else _read_cell(fields[id_at])
            group, email = _read_cell(fields[group_at]), _read_cell(fields[email_at])
            rows.append(Row(reader.line_num, group, email, member_id))
    except csv.Error as error:
        raise invalid(f"This is not CSV: {error}.", f"line {reader.line_num}") from error
    return rows


def _decoded(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(f"Byte {error.start} is not UTF-8.", "file", "Save as UTF-8.") from error
    if "\0" in text:
        raise invalid("The file holds a NUL character.", "file")
    return text


def _columns(header: list[str]) -> tuple[int, int, int | None]:
    """Where the group, the address and, if there is one, the id stand."""
    if any(header.count(name) != 1 for name in REQUIRED_COLUMNS) or header.count(MEMBER_ID) > 1:
        raise invalid(
            "The first line must name the columns `group` and `email`, each once, and may name "
            f"`{MEMBER_ID}`.",
            "line 1",
        )
    id_at = header.index(MEMBER_ID) if MEMBER_ID in header else None
    return header.index("group"), header.index("email"), id_at


def _read_cell(field: str) -> str:
    cell = field.strip()
    return cell[1:].strip() if cell.startswith("'") and FORMULA.match(cell) else cell


def write_rows(rows: Iterable[tuple[str, str, str]]) -> str:
    """A file of groups, addresses and ids; CRLF line ends. Every cell is quoted, so that a list
    separator that is no comma cannot begin another cell."""
    written = io.StringIO(newline="")
    writer = csv.writer(written, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    writer.writerows([guarded(cell) for cell in row] for row in rows)
    return written.getvalue()
