"""Ids and secrets: opaque, prefixed by what they name, from the system's randomness."""

import hashlib
import secrets
import string
from typing import Final

ALPHABET: Final = string.ascii_uppercase + string.digits
ID_CHARACTERS: Final = 26
ID_BITS: Final = 134
SECRET_CHARACTERS: Final = 40


def new_id(prefix: str) -> str:
    """`<prefix>_` and 26 alphanumerics (134 bits), as Cursor's ids look."""
    number = secrets.randbits(ID_BITS)
    characters = []
    for _ in range(ID_CHARACTERS):
        number, place = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[place])
    return f"{prefix}_" + "".join(characters)


def new_secret() -> str:
    """An API key or SCIM token: `mtr_` and 40 alphanumerics (238 bits)."""
    alphabet = string.ascii_letters + string.digits
    return "mtr_" + "".join(secrets.choice(alphabet) for _ in range(SECRET_CHARACTERS))


def secret_hash(secret: str) -> str:
    """How a secret is kept. A plain SHA-256 is enough: nobody can try 2^238 secrets."""
    return hashlib.sha256(secret.encode()).hexdigest()
