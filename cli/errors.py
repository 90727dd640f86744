"""How a command fails: one clear line and an exit code."""

from typing import Final

FAILED: Final = 1
WRONG_SETTINGS: Final = 2


class Failure(Exception):
    """An expected failure; the text is the whole message, for whoever ran the command."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Unreachable(Failure):
    """A server does not answer, or its database is not there."""


def one_line(error: BaseException, limit_characters: int = 500) -> str:
    """An error of somebody else's as one line; its type where it says nothing itself."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:limit_characters]


def printable(text: str) -> str:
    """Text of somebody else's for a terminal: control characters escaped, lines kept."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode()
        for each in text
    )
