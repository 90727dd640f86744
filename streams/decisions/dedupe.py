"""Is this event new? Its identity was looked up; what it said then is compared with now."""

from enum import Enum
from typing import Final

UNSEEN: Final = 0
"""What the seen store answers for an identity it does not know; no content digest is 0."""


class Verdict(Enum):
    """Only a fresh event is charged; a duplicate is counted, a conflict is dead-lettered."""

    FRESH = "fresh"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


def judge(seen_content: int, content: int) -> Verdict:
    """The verdict on an event whose identity was seen with `seen_content` (0: never)."""
    if seen_content == UNSEEN:
        return Verdict.FRESH
    return Verdict.DUPLICATE if seen_content == content else Verdict.CONFLICT
