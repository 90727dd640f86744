"""Names and e-mail addresses: what they may look like, and how they are compared."""

import re
import unicodedata
from typing import Final

from api.errors import Refused, invalid
from api.storage.base import NAME_LIMIT_CHARACTERS
from schemas.records import ID_LIMIT_CHARACTERS, UNASSIGNED

EMAIL: Final = re.compile(r"[^\s@,;<>\"]+@[^\s@,;<>\"]+\Z")
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]*\Z")
UNASSIGNED_NAME: Final = "Unassigned"


def fold(text: str) -> str:
    """How names and addresses are compared: NFC, without case."""
    return unicodedata.normalize("NFC", text).casefold()


def clean_name(name: str, where: str = "name") -> str:
    """The name as it is kept: NFC, without outer spaces.

    Raises Refused where it is empty, too long, or holds control characters.
    """
    cleaned = unicodedata.normalize("NFC", name).strip()
    if not cleaned:
        raise invalid("The name is empty.", where)
    if len(cleaned) > NAME_LIMIT_CHARACTERS:
        raise invalid(f"The name is longer than {NAME_LIMIT_CHARACTERS} characters.", where)
    if not cleaned.isprintable() and any(
        unicodedata.category(character) in ("Cc", "Cs") for character in cleaned
    ):
        raise invalid("The name holds a control character.", where)
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
    cleaned = clean_name(email, where)
    if not EMAIL.match(cleaned):
        raise invalid("This is not an e-mail address.", where)
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
