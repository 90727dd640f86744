"""`/v1/…/overage`: what no credits were left for, to be invoiced."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from api import reading
from api.errors import invalid
from api.reading.overage import (
    COLUMNS,
    ORGANIZATIONS_AT_ONCE,
    OverageRow,
    check_period,
    organizations_after,
    overage_of,
    period_of,
    periods_among,
)
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import OPERATORS, READERS, Allow, Api, ApiPart, Caller, OrganizationId
from api.web.pages import Paging, after_text, cursor_of
from api.web.shapes import overage as shapes
from api.web.shapes.common import iso
from schemas.spreadsheets import csv_lines, guarded

router = APIRouter(prefix="/v1", tags=["Organizations, prices and credits"], route_class=KeyedRoute)

Operator = Annotated[Caller, Depends(Allow(OPERATORS, "usage"))]
Reader = Annotated[Caller, Depends(Allow(READERS, "api"))]
CSV: Final = "text/csv"
PERIOD: Final = (
    "A billing month (2026-11), the billing cycle of a day (2026-11-15), or days "
    "(2026-11-01..2026-11-15), in the organization's own calendar."
)
PERIOD_CHARACTERS_MAX: Final = 32


@router.get(
    "/overage",
    response_model=shapes.OveragePage,
    responses=responses(Error)
    | {
        200: {
            "content": {CSV: {"schema": {"type": "string"}, "example": shapes.EXAMPLE_CSV}},
            "description": "A page, or as CSV all of it.",
        }
    },
    summary="Overage of every organization in a period, to be invoiced",
)
def list_overage(
    api: ApiPart,
    caller: Operator,
    request: Request,
    paging: Paging,
    period: Annotated[
        str,
        Query(max_length=PERIOD_CHARACTERS_MAX, description=PERIOD, examples=["2026-11"]),
    ],
    format_: Annotated[
        Literal["json", "csv"] | None,
        Query(alias="format", description="Instead of the header `Accept`. CSV has no pages."),
    ] = None,
) -> Response:
    """Credits that come later do not change the overage of a period that is over. As CSV all
    organizations are sent while they are read; an answer that breaks off is not whole."""
    check_period(period)
    if format_ == "csv" or (format_ is None and CSV in request.headers.get("accept", "")):
        if paging.cursor:
            raise invalid("CSV has no pages.", "query.cursor", "Leave the cursor out.")
        return _as_csv(api, period)
    after = after_text(paging.cursor)
    with api.store.read() as session:
        names = organizations_after(session, after, paging.limit + 1)
        shown = dict(list(names.items())[: paging.limit])
        periods = periods_among(session, shown, period)
    rows = overage_of(api.spend, periods)
    return Json(
        {
            "items": [shapes.shown_overage(row, names[row.organization_id]) for row in rows],
            "next_cursor": cursor_of(list(shown)[-1]) if len(names) > len(shown) else None,
        }
    )


@router.get(
    "/organizations/{organization_id}/overage",
    response_model=shapes.Overage,
    responses=responses(Error, 404),
    summary="Overage of an organization in a period",
)
def get_overage(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    period: Annotated[
        str | None,
        Query(
            max_length=PERIOD_CHARACTERS_MAX,
            description=f"{PERIOD} The running cycle without it.",
            examples=["2026-11"],
        ),
    ] = None,
) -> Response:
    with api.store.read() as session:
        name = reading.organization(session, organization_id).name
        cycle = period_of(session, organization_id, period, api.control.clock())
    rows = overage_of(api.spend, {organization_id: cycle})
    return Json(
        {
            "start": iso(cycle.start),
            "end": iso(cycle.end),
            "time_zone": cycle.time_zone,
            "items": [shapes.shown_overage(row, name) for row in rows],
        }
    )


def _as_csv(api: Api, period: str) -> Response:
    """The first organizations are asked before anything is sent: what is wrong by then is said
    with a status."""
    parts = _csv_parts(api, period)
    first = next(parts)

    def whole() -> Iterator[str]:
        yield first
        yield from parts

    return StreamingResponse(
        whole(),
        media_type=f"{CSV}; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="overage.csv"'},
    )


def _csv_parts(api: Api, period: str) -> Iterator[str]:
    """As many organizations at once as memory is to hold."""
    names, head = _next_organizations(api, None), [list(COLUMNS)]
    while True:
        with api.store.read() as session:
            periods = periods_among(session, names, period)
        yield csv_lines([*head, *_cells(overage_of(api.spend, periods), names)])
        if len(names) < ORGANIZATIONS_AT_ONCE:
            return
        names, head = _next_organizations(api, list(names)[-1]), []


def _next_organizations(api: Api, after: str | None) -> dict[str, str]:
    with api.store.read() as session:
        return organizations_after(session, after, ORGANIZATIONS_AT_ONCE)


def _cells(rows: Sequence[OverageRow], names: Mapping[str, str]) -> Iterator[list[str]]:
    for row in rows:
        fields: dict[str, Any] = shapes.shown_overage(row, names[row.organization_id])
        texts = ("organization_id", "organization_name")
        yield [guarded(value) if name in texts else str(value) for name, value in fields.items()]
