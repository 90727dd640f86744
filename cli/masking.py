"""Addresses with their passwords masked, wherever in the address a password stands."""

import re
from typing import Final

MASK: Final = "********"
PASSWORD: Final = re.compile(r"(://[^/@:?]*:)[^/@]*@")
PARAMETER: Final = re.compile(r"(?<=[?&;])([^=&;#\s]+)=([^&;#\s]*)")
HARMLESS: Final = frozenset(
    {
        "application_name",
        "channel_binding",
        "connect_timeout",
        "gssencmode",
        "secure",
        "sslmode",
        "target_session_attrs",
        "timeout",
        "verify",
    }
)
"""Parameters of a query string that are shown; of every other one only the name."""


def without_secrets(address: str) -> str:
    """The text with passwords before an `@`, and the values of query parameters, masked."""
    return PARAMETER.sub(_masked_parameter, PASSWORD.sub(rf"\g<1>{MASK}@", address))


def _masked_parameter(match: re.Match[str]) -> str:
    name, value = match.groups()
    return f"{name}={value if name.lower() in HARMLESS else MASK}"
