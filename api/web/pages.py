"""Pages of `/v1`: a cursor that says where the next one begins, stable while rows come and go."""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.errors import Refused, invalid
from api.web.shapes.v1 import YEARS

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


def after_text(cursor: str) -> str | None:
    """As `after`, for rows that are ordered by a text."""
    position = after(cursor)
    if position is None:
        return None
    if not isinstance(position, str):
        raise bad_cursor()
    try:
        position.encode()  # JSON can say half of a surrogate pair; no database can keep it.
    except UnicodeEncodeError as error:
        raise bad_cursor() from error
    return position


def after_number(cursor: str) -> int | None:
    """As `after`, for rows that are ordered by a number."""
    position = after(cursor)
    if position is not None and (not isinstance(position, int) or not 0 <= position < 2**62):
        raise bad_cursor()
    return position


def bad_cursor() -> Refused:
    return invalid("This is no cursor of ours.", "cursor", "Send `next_cursor` as you got it.")


@dataclass(frozen=True, slots=True)
class Page:
    """Which rows are asked for."""

    limit: Limit = 100
    cursor: Cursor = ""


Paging = Annotated[Page, Depends()]


def page(
    session: Session,
    paging: Page,
    query: Select[*tuple[Any, ...]],
    key: InstrumentedAttribute[Any],
    to_json: Callable[..., dict[str, Any]],
    *,
    newest_first: bool = False,
) -> dict[str, Any]:
    """The asked page of a query, in the order of `key`, a unique column of its first entity.

    One row more than asked for is read, to know whether there is another page. `to_json` is given
    the columns of a row. Raises Refused (400) where the cursor is not one of such a list.
    """
    is_number = key.type.python_type is int
    after = after_number(paging.cursor) if is_number else after_text(paging.cursor)
    if after is not None:
        query = query.where(key < after if newest_first else key > after)
    in_order = query.order_by(key.desc() if newest_first else key)
    rows = session.execute(in_order.limit(paging.limit + 1)).all()
    shown_rows = rows[: paging.limit]
    has_more = len(rows) > paging.limit
    return {
        "items": [to_json(*row) for row in shown_rows],
        "next_cursor": cursor_of(getattr(shown_rows[-1][0], key.key)) if has_more else None,
    }


def newest_page(
    session: Session,
    paging: Page,
    query: Select[*tuple[Any, ...]],
    at: InstrumentedAttribute[Any],
    key: InstrumentedAttribute[Any],
    to_json: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    """As `page`, the newest first by a time, and by `key` where times are equal."""
    position = after(paging.cursor)
    if position is not None:
        moment, last = _moment_and_key(position)
        query = query.where((at < moment) | ((at == moment) & (key < last)))
    rows = session.execute(query.order_by(at.desc(), key.desc()).limit(paging.limit + 1)).all()
    shown_rows = rows[: paging.limit]
    next_cursor = None
    if len(rows) > paging.limit:
        last_row = shown_rows[-1][0]
        next_cursor = cursor_of([getattr(last_row, at.key).isoformat(), getattr(last_row, key.key)])
    return {"items": [to_json(*row) for row in shown_rows], "next_cursor": next_cursor}


def _moment_and_key(position: Any) -> tuple[datetime, str]:
    match position:
        case [str(moment_text), str(key)]:
            try:
                key.encode()
                moment = datetime.fromisoformat(moment_text)
            except ValueError as error:
                raise bad_cursor() from error
            if moment.tzinfo is not None and moment.year in YEARS:
                return moment, key
    raise bad_cursor()


def cursor_of(value: Any) -> str:
    """The cursor that stands for this last row's place; `after` reads it again."""
    return base64.urlsafe_b64encode(json.dumps({"after": value}).encode()).decode().rstrip("=")
