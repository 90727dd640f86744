"""Names and e-mail addresses: what they may look like. `fold` says how they are compared."""

import re
import unicodedata
from typing import Final

from api.errors import Refused, invalid
from api.storage.base import NAME_LIMIT_CHARACTERS
from schemas.codec import fold as fold
from schemas.records import ID_LIMIT_CHARACTERS, UNASSIGNED

EMAIL: Final = re.compile(r"[^\s@,;<>\"]+@[^\s@,;<>\"]+\Z")
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]*\Z")
UNASSIGNED_NAME: Final = "Unassigned"

UNSEEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Unicode's controls, formats (zero width, right to left), separators of lines, and what has no
sign of its own."""
UNSEEN_LETTERS: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
)
"""Of other categories, and yet without width or ink."""
EMOJI_STYLE: Final = "\ufe0f"
EMOJI_JOINER: Final = "\u200d"


def unseen_character(text: str) -> str:
    """The first character that a reader cannot see, described; empty where all can be seen.

    Two names that differ only in one look the same. Inside an emoji they are part of the picture.
    """
    if text.isascii() and text.isprintable():
        return ""
    for at, character in enumerate(text):
        if _is_unseen(character) and not _is_in_emoji(text, at):
            name = unicodedata.name(character, "a control character")
            return f"{name} (U+{ord(character):04X}, character {at + 1})"
    return ""


def _is_unseen(character: str) -> bool:
    return (
        unicodedata.category(character) in UNSEEN_CATEGORIES
        or character in UNSEEN_LETTERS
        or "\ufe00" <= character <= EMOJI_STYLE
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def _is_in_emoji(text: str, at: int) -> bool:
    """Keyboards write 'red heart' as a heart and a style, and families with joiners."""
    if at == 0:
        return False
    if text[at] == EMOJI_STYLE:
        return unicodedata.category(text[at - 1]) == "So"
    if text[at] == EMOJI_JOINER and at + 1 < len(text):
        is_picture = unicodedata.category(text[at - 1]) in ("So", "Sk") or (
            text[at - 1] == EMOJI_STYLE
        )
        return is_picture and unicodedata.category(text[at + 1]) == "So"
    return False


def refuse_unseen(text: str, where: str) -> None:
    """Raises Refused (400) where a character cannot be seen."""
    unseen = unseen_character(text)
    if unseen:
        raise invalid(
            f"This holds {unseen}, which nobody can see.",
            where,
            "Type it anew instead of pasting it.",
        )


def clean_name(name: str, where: str = "name") -> str:
    """The name as it is kept: NFC, without outer spaces.

    Raises Refused where it is empty, too long, or holds a character that cannot be seen.
    """
    cleaned = unicodedata.normalize("NFC", name).strip()
    if not cleaned:
        raise invalid("The name is empty.", where)
    if len(cleaned) > NAME_LIMIT_CHARACTERS:
        raise invalid(f"The name is longer than {NAME_LIMIT_CHARACTERS} characters.", where)
    refuse_unseen(cleaned, where)
    return cleaned


def clean_group_name(name: str, where: str = "name") -> str:
    """A group's name, which may be anything but `Unassigned`."""
    cleaned = clean_name(name, where)
    if fold(cleaned) == fold(UNASSIGNED_NAME):
        raise Refused(
            409,
            "reserved_group",
            f"The name {UNASSIGNED_NAME!r} is reserved for members without a group.",
            where,
            "Choose another name.",
        )
    return cleaned


def clean_email(email: str, where: str = "email") -> str:
    """An e-mail address as it is kept. Raises Refused where it is none."""
    cleaned = clean_name(email, where)
    if not EMAIL.match(cleaned):
        raise invalid(f"{cleaned!r} is not an e-mail address.", where)
    return cleaned


def clean_id(identifier: str, where: str) -> str:
    """An id that the caller chose."""
    if len(identifier) > ID_LIMIT_CHARACTERS or not ID.match(identifier):
        raise invalid(
            f"An id has 1 to {ID_LIMIT_CHARACTERS} letters, digits or any of . _ : @ + -", where
        )
    if identifier == UNASSIGNED:
        raise invalid(f"{UNASSIGNED} is reserved.", where, "Choose another id.", "reserved_group")
    return identifier


def check_external_id(external_id: str | None) -> None:
    """The identity provider's own id. Raises Refused (400) where it cannot be kept as it is."""
    if external_id is None:
        return
    if len(external_id) > NAME_LIMIT_CHARACTERS:
        raise invalid(
            f"An externalId has {NAME_LIMIT_CHARACTERS} characters at most.", "externalId"
        )
    refuse_unseen(external_id, "externalId")
