"""What scim2-models refuses, told in our own words: what was wrong, where, and what to do."""

import re
from typing import Any, Final

from pydantic import ValidationError
from scim2_models import Error, SCIMException

from api.complaints import OTHERWISE, complaint
from api.errors import Refused

SEE_SCHEMAS: Final = "See /scim/v2/Schemas for the attributes there are."

# By the standard's `scimType`: what to call it where it has no name, what is wrong, what to do.
BY_TYPE: Final[dict[str, tuple[str, str, str]]] = {
    "invalidFilter": (
        "The filter",
        "cannot be understood, or compares an attribute as it cannot be compared",
        'Write it as `userName eq "ann@example.com"`.',
    ),
    "invalidPath": ("The path", "is no attribute that can be changed", SEE_SCHEMAS),
    "noTarget": ("The path", "selects nothing that is there", "Read the resource again."),
    "mutability": ("One attribute", "cannot be changed or taken away", "Leave it out."),
    "invalidSyntax": (
        "The body",
        "is not what this request takes",
        "Compare it with RFC 7644, which names the parts of each request.",
    ),
    "invalidValue": ("One value", "cannot be kept", SEE_SCHEMAS),
}
UNKNOWN: Final = ("The request", "cannot be understood", SEE_SCHEMAS)
NAMES_OF_WHERE: Final = ("path", "field", "attribute", "field_name")
QUOTED_ATTRIBUTE: Final = re.compile(r"'([\w$.:]+)'")


def refused_by_schema(error: ValidationError) -> Refused:
    """A body whose shape or values the schema does not have."""
    first: dict[str, Any] = dict(error.errors()[0])
    scim_error = Error.from_validation_error(first)
    text = str(first["msg"])
    where = str(scim_error.detail or "").removeprefix(text).removeprefix(": ")
    where = where or _named(first.get("ctx") or {}) or _quoted_in(text)
    if first["type"].startswith("scim_"):
        where = _path(first["loc"]) or where
        return _refused(scim_error.scim_type, where, scim_error.status)
    words = complaint(first)
    if first["type"] == "value_error":
        words = OTHERWISE
    elif first["type"] == "required_error":
        words = "is missing"
    return Refused(
        400,
        "scim",
        f"{f'`{where}`' if where else 'The body'} {words}.",
        where or "body",
        SEE_SCHEMAS,
        details={"scimType": scim_error.scim_type} if scim_error.scim_type else {},
    )


def refused_by_rule(error: SCIMException) -> Refused:
    """A filter, path or operation that the standard does not allow."""
    if isinstance(error.__cause__, ValidationError):
        return refused_by_schema(error.__cause__)
    scim_error = error.to_error()
    where = "filter" if scim_error.scim_type == "invalidFilter" else ""
    where = where or _named(vars(error)) or _quoted_in(str(error))
    return _refused(scim_error.scim_type, where, scim_error.status)


def _path(location: tuple[str | int, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _named(context: dict[str, Any]) -> str:
    return next((str(context[name]) for name in NAMES_OF_WHERE if context.get(name)), "")


def _quoted_in(text: str) -> str:
    """The attribute that the library's sentence is about, where it names one."""
    match = QUOTED_ATTRIBUTE.search(text)
    return match[1] if match else ""


def _refused(scim_type: str | None, where: str, status: int | None) -> Refused:
    unnamed, wrong, what_to_do = BY_TYPE.get(scim_type or "", UNKNOWN)
    subject = f"`{where}`" if where else unnamed
    details = {"scimType": scim_type} if scim_type else {}
    return Refused(status or 400, "scim", f"{subject} {wrong}.", where, what_to_do, {}, details)
