"""Pages of `/v1`: a cursor that says where the next one begins, stable while rows come and go."""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import Query

from api.errors import Refused, invalid

PAGE_MAX: Final = 1_000

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Rows a page.")]
Cursor = Annotated[
    str, Query(max_length=2_000, description="`next_cursor` of the page before; empty at first.")
]


def after(cursor: str) -> Any:
    """What the cursor stands for; None for the first page. Raises Refused (400)."""
    if not cursor:
        return None
    try:
        return json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=="))["after"]
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise bad_cursor() from error


def after_text(cursor: str) -> str:
    """As `after`, for rows that are ordered by their id; empty for the first page."""
    found = after(cursor)
    if found is not None and not isinstance(found, str):
        raise bad_cursor()
    return found or ""


def after_number(cursor: str) -> int | None:
    found = after(cursor)
    if found is not None and (not isinstance(found, int) or not 0 <= found < 2**62):
        raise bad_cursor()
    return found


def bad_cursor() -> Refused:
    return invalid("This is no cursor of ours.", "cursor", "Send `next_cursor` as you got it.")


def page(rows: Sequence[Any], limit: int, shown: Any, last: Any) -> dict[str, Any]:
    """A page of `limit` rows out of `limit + 1` that were read."""
    has_more = len(rows) > limit
    kept = rows[:limit]
    return {
        "items": [shown(row) for row in kept],
        "next_cursor": _cursor(last(kept[-1])) if has_more else None,
    }


def _cursor(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps({"after": value}).encode()).decode().rstrip("=")
