"""`/teams`: members, spend and single usage events, in Cursor's shapes.

Our meters and dimensions stand where Cursor has models and requests: `model` is the dimension of
that name, `kind` tells whether credits covered the event, `chargedCents` is its whole cost.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from math import ceil
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.errors import invalid
from api.reading.billing_calendar import cycle_for
from api.reading.spend import cents
from api.reading.usage import EventFilter, People, count_events, list_events
from api.rules.names import fold
from api.storage.base import rfc3339
from api.storage.models import Member, MemberAlias
from api.web.admission import KeyedRoute
from api.web.answers import Json, TeamsError, responses
from api.web.context import READERS, Allow, ApiPart, Caller
from api.web.shapes import teams
from api.web.teams_groups import tenant

router = APIRouter(
    prefix="/teams", tags=["Usage and spend (Cursor's shapes)"], route_class=KeyedRoute
)

Reader = Annotated[Caller, Depends(Allow(READERS, "api", tenant=True))]
UsageReader = Annotated[Caller, Depends(Allow(READERS, "usage", tenant=True))]

PAGE_MAX: Final = 1_000
PAGES_MAX: Final = 1_000_000
DAYS_MAX: Final = 30
MS_LATEST: Final = 7_258_118_400_000
"""The year 2200."""
NOTHING: Final = (0, 0)

Page = Annotated[int, Field(ge=1, le=PAGES_MAX)]
PageSize = Annotated[
    int,
    Field(ge=1, le=PAGES_MAX, description=f"More than {PAGE_MAX} counts as {PAGE_MAX}."),
    AfterValidator(lambda size: min(size, PAGE_MAX)),
]
Milliseconds = Annotated[int, Field(ge=0, le=MS_LATEST, examples=[1_793_491_200_000])]
Text = Annotated[str, Field(max_length=256)]
OneOrAll = Annotated[str, Field(max_length=256, description="An id, or `*` for all that have one.")]
HostingType = Literal["CLOUD", "SELF_HOSTED", "SELF_HOSTED_POOL", "SELF_HOSTED_MACHINE"]
HOSTED: Final[dict[str, tuple[str, ...]]] = {
    "CLOUD": ("CLOUD",),
    "SELF_HOSTED": ("SELF_HOSTED", "SELF_HOSTED_POOL", "SELF_HOSTED_MACHINE"),
    "SELF_HOSTED_POOL": ("SELF_HOSTED_POOL",),
    "SELF_HOSTED_MACHINE": ("SELF_HOSTED_MACHINE",),
}
"""What the dimension `hosting_type` may say, by what is asked for."""


class TeamMember(msgspec.Struct, gc=False):
    """A row of `/teams/members`, which may have 20,000 of them."""

    id: str
    name: str
    email: str
    role: str
    isRemoved: bool


class Spender(msgspec.Struct, gc=False):
    """Whom `/teams/spend` sorts; `created_at` as text, which has the same order."""

    member_id: str
    name: str
    email: str
    role: str
    created_at: str


class SpendQuestion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    searchTerm: Text = ""
    sortBy: Literal["amount", "date", "user"] = "date"
    sortDirection: Literal["asc", "desc"] = "desc"
    page: Page = 1
    pageSize: PageSize = 100


class EventsQuestion(BaseModel):
    """All that is given must hold. Dates are milliseconds, both inclusive; by default the last 30
    days."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    startDate: Milliseconds | None = None
    endDate: Milliseconds | None = None
    userId: Text | None = None
    email: Text | None = None
    serviceAccountId: Text | None = None
    cloudAgentId: OneOrAll | None = None
    automationId: OneOrAll | None = None
    hostingType: HostingType | None = None
    page: Page = 1
    pageSize: PageSize = 100


@router.get(
    "/members",
    response_model=teams.TeamMembers,
    responses=responses(TeamsError),
    summary="Every member, removed ones too",
)
def list_members(api: ApiPart, caller: Reader) -> Response:
    with api.store.read() as session:
        rows = session.connection().execute(
            select(
                Member.id,
                Member.name,
                func.coalesce(Member.email, ""),
                Member.role,
                Member.removed_at.is_not(None),
            )
            .where(Member.organization_id == tenant(caller), Member.kind == "person")
            .order_by(Member.id)
        )
        return Json({"teamMembers": [TeamMember(*row) for row in rows.all()]})


@router.post(
    "/spend",
    response_model=teams.TeamSpend,
    responses=responses(TeamsError),
    summary="Spend by member in the current cycle",
)
def post_spend(api: ApiPart, caller: Reader, body: SpendQuestion) -> Response:
    organization_id = tenant(caller)
    with api.store.read() as session:
        cycle = cycle_for(session, organization_id, None, api.control.clock())
        answer = api.spend.soon(api.spend.by_member, organization_id, cycle)
        members = session.connection().execute(
            select(
                Member.id,
                Member.name,
                func.coalesce(Member.email, ""),
                Member.role,
                rfc3339(Member.created_at),
            ).where(Member.organization_id == organization_id, Member.removed_at.is_(None))
        )
        rows = [Spender(*row) for row in members.all()]
    spent = answer.result()
    if body.searchTerm:
        term = fold(body.searchTerm)
        rows = [row for row in rows if term in fold(f"{row.name} {row.email}")]
    orders: dict[str, Callable[[Spender], Any]] = {
        "amount": lambda row: (spent.get(row.member_id, NOTHING)[1], row.member_id),
        "date": lambda row: (row.created_at, row.member_id),
        "user": lambda row: (fold(row.name or row.email), row.member_id),
    }
    rows.sort(key=orders[body.sortBy], reverse=body.sortDirection == "desc")
    start = (body.page - 1) * body.pageSize
    return Json(
        {
            "teamMemberSpend": [
                _member_spend(row, *spent.get(row.member_id, NOTHING))
                for row in rows[start : start + body.pageSize]
            ],
            "subscriptionCycleStart": int(cycle.start.timestamp() * 1000),
            "totalMembers": len(rows),
            "totalPages": ceil(len(rows) / body.pageSize),
        }
    )


def _member_spend(member: Spender, on_demand_pico: int, pico: int) -> dict[str, Any]:
    return {
        "userId": member.member_id,
        "name": member.name,
        "email": member.email,
        "role": member.role,
        "spendCents": cents(on_demand_pico),
        "overallSpendCents": cents(pico),
        "fastPremiumRequests": 0,
        "hardLimitOverrideDollars": 0,
        "monthlyLimitDollars": None,
        "effectivePerUserLimitDollars": None,
    }


@router.post(
    "/filtered-usage-events",
    response_model=teams.UsageEvents,
    responses=responses(TeamsError),
    summary="Single usage events, newest first",
)
def post_events(api: ApiPart, caller: UsageReader, body: EventsQuestion) -> Response:
    organization_id = tenant(caller)
    start, end = window(api.control.clock(), body.startDate, body.endDate)
    with api.store.read() as session:
        members = _filtered_members(session, organization_id, body)
    events = EventFilter(organization_id, start, end, members, _dimensions(body))
    total = count_events(api.spend, events)
    offset = (body.page - 1) * body.pageSize
    rows = list_events(api.spend, events, body.pageSize, offset) if offset < total else []
    with api.store.read() as session:
        people = people_of(session, organization_id, {row.member_id for row in rows})
    return Json(
        {
            "totalUsageEventsCount": total,
            "pagination": pagination(total, body.page, body.pageSize),
            "usageEvents": [event.as_json(people) for event in rows],
            "period": {"startDate": start, "endDate": end},
        }
    )


def _dimensions(body: EventsQuestion) -> dict[str, tuple[str, ...]]:
    """The values that a dimension may have; none given allow any."""
    values = {
        name: () if value == "*" else (value,)
        for name, value in (
            ("cloud_agent_id", body.cloudAgentId),
            ("automation_id", body.automationId),
        )
        if value
    }
    return values | ({"hosting_type": HOSTED[body.hostingType]} if body.hostingType else {})


def _filtered_members(
    session: Session, organization_id: str, body: EventsQuestion
) -> list[str] | None:
    """The members that all filters leave; None where none of them names one."""
    member_ids: list[str] = [one for one in (body.userId, body.serviceAccountId) if one is not None]
    if body.email is not None:
        alias = session.get(MemberAlias, (organization_id, fold(body.email)))
        member_ids.append(alias.member_id if alias else "")
    if not member_ids:
        return None
    return member_ids[:1] if len(set(member_ids)) == 1 else [""]


def people_of(session: Session, organization_id: str, member_ids: Collection[str]) -> People:
    """Who these are, and perhaps others; those that are no members are absent."""
    query = select(Member.id, Member.email, Member.name, Member.kind).where(
        Member.organization_id == organization_id
    )
    if len(member_ids) <= PAGE_MAX:
        query = query.where(Member.id.in_(member_ids))
    rows = session.connection().execute(query)
    return {row[0]: (row[1] or "", row[2], row[3] == "service_account") for row in rows.all()}


def pagination(total: int, page: int, size: int) -> dict[str, Any]:
    pages = ceil(total / size)
    return {
        "numPages": pages,
        "currentPage": page,
        "pageSize": size,
        "hasNextPage": page < pages,
        "hasPreviousPage": page > 1,
    }


def window(now: datetime, start: int | None, end: int | None) -> tuple[int, int]:
    """The asked time in milliseconds, both inclusive; by default the last 30 days."""
    last = int(now.timestamp() * 1000) if end is None else end
    first = max(0, last - DAYS_MAX * 86_400_000) if start is None else start
    if first > last:
        raise invalid("The start lies after the end.", "body.startDate")
    return first, last
