"""ClickHouse's errors as its HTTP interface shows them: a code, a sentence, an HTTP status.

The engine's exceptions carry the code only in their text, sometimes prefixed and nested; here it
is taken out again. Clients decide by the code, so it must be ClickHouse's own.
"""

import re
from typing import Final

CODE_PATTERN = re.compile(r"Code: (\d+)\. ")
NESTED_PATTERN = re.compile(r"^(Code: \d+\. DB::Exception: )(?:Code: \d+\. DB::Exception: )+")

NAMES: Final = {
    48: "NOT_IMPLEMENTED",
    62: "SYNTAX_ERROR",
    73: "UNKNOWN_FORMAT",
    81: "UNKNOWN_DATABASE",
    115: "UNKNOWN_SETTING",
    164: "READONLY",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    209: "SOCKET_TIMEOUT",
    271: "CANNOT_DECOMPRESS",
    306: "TOO_DEEP_RECURSION",
    307: "TOO_MANY_BYTES",
    452: "SETTING_CONSTRAINT_VIOLATION",
    516: "AUTHENTICATION_FAILED",
    1002: "UNKNOWN_EXCEPTION",
}

# ClickHouse maps these codes to these statuses; every other code is a 500.
STATUS: Final = {
    6: 400,
    26: 400,
    27: 400,
    36: 400,
    46: 404,
    47: 404,
    60: 404,
    62: 400,
    73: 400,
    81: 404,
    115: 404,
    159: 408,
    164: 403,
    192: 403,
    193: 403,
    194: 401,
    202: 503,
    209: 408,
    210: 503,
    306: 400,
    307: 413,
    456: 400,
    457: 400,
    497: 403,
    516: 403,
}


class ClickHouseError(Exception):
    """A refusal with ClickHouse's code; `str()` is the text a client shows."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    @property
    def status(self) -> int:
        return STATUS.get(self.code, 500)


def refusal(code: int, sentence: str) -> ClickHouseError:
    """An error of the front's own, worded as the engine words its errors."""
    return ClickHouseError(code, f"Code: {code}. DB::Exception: {sentence} ({NAMES[code]})")


def readonly_refusal(why: str = "Cannot execute query in readonly mode.") -> ClickHouseError:
    return refusal(164, why)


def from_engine(error: Exception) -> ClickHouseError:
    """The engine raises `ChdbError` from queries and a plain `RuntimeError` from inserts."""
    text = str(error).strip()
    start = CODE_PATTERN.search(text)
    if start is None:
        return refusal(1002, text)
    return ClickHouseError(int(start[1]), NESTED_PATTERN.sub(r"\1", text[start.start() :]))
