"""`/v1/organizations/…/groups/csv`: groups and members as a file, planned first, then applied."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from api import reading
from api.errors import forbidden
from api.rules import csv_files, csv_people, csv_plans
from api.rules.change import Change
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import (
    ADMINS,
    GROUP_EDITORS,
    READERS,
    Allow,
    ApiPart,
    Caller,
    OrganizationId,
)
from api.web.idempotency import Answer, OncePart, change_once

router = APIRouter(
    prefix="/v1/organizations/{organization_id}", tags=["CSV"], route_class=KeyedRoute
)

Reader = Annotated[Caller, Depends(Allow(READERS, "api"))]
Editor = Annotated[Caller, Depends(Allow(GROUP_EDITORS, "api", large_body=True))]

EXAMPLE: Final = "group,email\r\nResearch,ann@example.com\r\n"
EXPORTED: Final = '"group","email","member_id"\r\n"Research","ann@example.com","user_42"\r\n'
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"text/csv": {"schema": {"type": "string"}, "example": EXAMPLE}},
    }
}


class PlannedRow(BaseModel):
    line: int = Field(examples=[2])
    group: str = Field(examples=["Research"])
    email: str = Field(examples=["ann@example.com"])
    member_id: str | None = Field(
        examples=["user_42"], description="Null for somebody whom the file makes a member."
    )
    action: str = Field(
        examples=["move"],
        description="`move`, `create_and_move`, `unassign`, `unchanged` or `refused`.",
    )
    why: str = Field(examples=[""])


class CsvPlan(BaseModel):
    """What the file would do, or did; `plan` names it, to be sent when it is applied."""

    applied: bool
    plan: str = Field(examples=["0f1e2d3c4b5a69788796a5b4c3d2e1f0"])
    counts: dict[str, int] = Field(examples=[{"move": 1}])
    new_groups: list[str] = Field(examples=[["Research"]])
    rows: list[PlannedRow]


async def read_body(request: Request) -> bytes:
    return await request.body()


@router.post(
    "/groups/csv",
    response_model=CsvPlan,
    responses=responses(Error, 404, 409, 413, 422),
    openapi_extra=BODY,
    summary="A dry run; with `plan` from one, applies it whole",
)
def post_csv(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    body: Annotated[bytes, Depends(read_body)],
    plan: Annotated[str, Query(max_length=64, description="From the dry run.")] = "",
    create_members: Annotated[
        bool, Query(description="Whether unknown addresses become members.")
    ] = False,
) -> Response:
    if create_members and caller.scope not in ADMINS:
        raise forbidden(
            f"A key of scope {caller.scope} may not create members.",
            f"Leave `create_members` out, or use a key of scope {' or '.join(sorted(ADMINS))}.",
        )
    rows = csv_files.read_rows(body)
    # Planning takes most of the time and needs only a snapshot, so nobody waits for it.
    with api.store.read() as session:
        preview = csv_plans.plan(session, organization_id, rows, create_members=create_members)
    if not plan:
        return Json(_plan_json(preview, applied=False))

    def apply(change: Change) -> Answer:
        return Answer(200, _plan_json(csv_plans.apply(change, preview, plan), applied=True))

    return change_once(api, caller, once, organization_id, apply)


def _plan_json(csv_plan: csv_plans.Plan, *, applied: bool) -> dict[str, Any]:
    return {
        "applied": applied,
        "plan": csv_plan.digest,
        "counts": csv_plan.counts,
        "new_groups": csv_plan.new_groups,
        "rows": [
            {
                "line": one.row.line,
                "group": one.row.group,
                "email": one.row.email,
                "member_id": one.member_id or None,
                "action": one.action,
                "why": one.why,
            }
            for one in csv_plan.rows
        ],
    }


@router.get(
    "/groups/csv",
    response_class=Response,
    responses=responses(Error, 404)
    | {200: {"content": {"text/csv": {"example": EXPORTED}}, "description": "The file."}},
    summary="Every active member and its group, as a file that can be sent back",
)
def get_csv(api: ApiPart, caller: Reader, organization_id: OrganizationId) -> Response:
    with api.store.read() as session:
        reading.organization(session, organization_id)
        text = csv_people.export(session, organization_id)
    return Response(
        text,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="groups.csv"'},
    )
