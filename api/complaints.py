"""What is wrong with a value, in our own words. The libraries that read requests have words of
their own, which name classes and versions that no caller knows.

Each complaint is the second half of a sentence; the name of what was sent goes before it:
"`limit` must be …".
"""

from collections.abc import Mapping
from typing import Any, Final

OTHERWISE: Final = "is not what is documented"

BY_KIND: Final[dict[str, str]] = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "string_type": "must be a text",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_pattern_mismatch": "must match `{pattern}`",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "json_invalid": "is not JSON",
    "json_type": "is not JSON",
    "none_required": "must be null",
    "timezone_aware": "must be a time with its zone, as 2026-11-15T12:00:00Z",
    "url_type": "must be an address, as https://example.com/",
    "url_parsing": "must be an address, as https://example.com/",
}
BY_BEGINNING: Final = (
    ("datetime_", "must be a time, as 2026-11-15T12:00:00Z"),
    ("date_", "must be a day, as 2026-11-15"),
    ("string_", "must be a text of Unicode characters"),
)


def complaint(error: Mapping[str, Any]) -> str:
    """The words for one error of pydantic's."""
    kind, context = str(error["type"]), error.get("ctx") or {}
    if kind == "value_error":
        # Only our own validators raise these, in words meant for callers.
        return str(context.get("error", OTHERWISE))
    words = BY_KIND.get(kind)
    if words is None:
        words = next((text for start, text in BY_BEGINNING if kind.startswith(start)), OTHERWISE)
    try:
        return words.format_map(context)
    except KeyError:
        return OTHERWISE
