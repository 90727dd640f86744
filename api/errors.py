"""What can go wrong for a caller: one exception with a code, where it is, and what to do about it.

Codes are words of the contract: they do not change, messages may.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Refused(Exception):
    """A request that cannot be done, and whose fault that is (`status`).

    `where` names the field, parameter or thing; `what_to_do` is a sentence for the caller.
    """

    status: int
    code: str
    message: str
    where: str = ""
    what_to_do: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def invalid(message: str, where: str = "", what_to_do: str = "", code: str = "invalid") -> Refused:
    """400: the request says something that cannot be."""
    return Refused(400, code, message, where, what_to_do or "Correct the field and send again.")


def not_found(kind: str, name: str, where: str = "") -> Refused:
    """404, also for what belongs to somebody else, so that nothing can be guessed."""
    return Refused(
        404,
        "not_found",
        f"There is no {kind} {name!r}.",
        where,
        "Check the id, and whose key it is.",
    )


def conflict(code: str, message: str, where: str, what_to_do: str, **details: Any) -> Refused:
    """409: true as sent, but not in the present state."""
    return Refused(409, code, message, where, what_to_do, details=details)


def forbidden(message: str, what_to_do: str = "Use a key with the right scope.") -> Refused:
    """403: known, but not allowed."""
    return Refused(403, "forbidden", message, "authorization", what_to_do)


def unavailable(code: str, message: str, retry_after_s: int) -> Refused:
    """503: nothing wrong with the request; try again after `retry_after_s` seconds."""
    return Refused(
        503,
        code,
        message,
        what_to_do=f"Try again in {retry_after_s} s.",
        headers={"Retry-After": str(retry_after_s)},
    )
