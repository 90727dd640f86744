"""How a decision says no. Outcomes are data; an exception from a decision is a bug."""

from typing import Final

from msgspec import Struct

from schemas.reasons import Reason

SHOWN_CHARACTERS: Final = 80
"""A refused value is shown up to here: details go into headers and tables."""


class Rejected(Struct, frozen=True):
    """Why a record goes to the dead letters; `detail` is a sentence for a person."""

    reason: Reason
    detail: str


def shown(value: object, limit: int = SHOWN_CHARACTERS) -> str:
    """A value as a detail shows it: quoted, printable, and cut to a bound of characters."""
    if isinstance(value, str):
        text = value[: limit + 1]
    elif isinstance(value, bytes):
        text = value[: limit + 1].decode("utf-8", "replace")
    elif isinstance(value, int) and value.bit_length() > 512:
        return "an integer of more than 150 digits"
    else:
        text = str(value)
    if len(text) > limit:
        text = text[:limit] + "…"
    return "'" + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text) + "'"
