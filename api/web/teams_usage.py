"""`/teams`: members, spend, usage events, daily usage and audit log, in Cursor's shapes.

Our meters and dimensions stand where Cursor has models and requests: `model` is the dimension of
that name, `kind` tells whether credits covered the event, `chargedCents` is its whole cost.
"""

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from api import reading
from api.cycles import cycle_for
from api.errors import invalid
from api.rules.names import fold
from api.spend import cents
from api.storage.base import rfc3339
from api.storage.ledgers import AuditEntry
from api.storage.models import Member, MemberAlias
from api.usage import EventFilter, People, count_events, daily_usage, list_events
from api.web.admission import KeyedRoute
from api.web.answers import Json, TeamsError, responses
from api.web.context import ADMINS, READERS, Allow, ApiPart, Caller
from api.web.shapes import teams
from api.web.shapes.common import iso
from api.web.teams_groups import tenant

router = APIRouter(
    prefix="/teams", tags=["Usage and spend (Cursor's shapes)"], route_class=KeyedRoute
)

Reader = Annotated[Caller, Depends(Allow(READERS, "api", tenant=True))]
UsageReader = Annotated[Caller, Depends(Allow(READERS, "usage", tenant=True))]
Admin = Annotated[Caller, Depends(Allow(ADMINS, "api", tenant=True))]

PAGE_MAX: Final = 1_000
PAGES_MAX: Final = 1_000_000
DAYS_MAX: Final = 30
MS_LATEST: Final = 7_258_118_400_000
"""The year 2200."""
NOTHING: Final = (0, 0)

Page = Annotated[int, Field(ge=1, le=PAGES_MAX)]
PageSize = Annotated[int, Field(ge=1, le=PAGE_MAX)]
Milliseconds = Annotated[int, Field(ge=0, le=MS_LATEST, examples=[1_793_491_200_000])]
Text = Annotated[str, Field(max_length=256)]


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
    sortBy: Literal["amount", "date", "user"] = "amount"
    sortDirection: Literal["asc", "desc"] = "desc"
    page: Page = 1
    pageSize: PageSize = 100


class EventsQuestion(BaseModel):
    """All that is given must hold. Dates are milliseconds, both inclusive."""

    model_config = ConfigDict(extra="forbid")

    startDate: Milliseconds | None = None
    endDate: Milliseconds | None = None
    userId: Text | None = None
    email: Text | None = None
    serviceAccountId: Text | None = None
    cloudAgentId: Text | None = None
    automationId: Text | None = None
    hostingType: Literal["cloud", "self-hosted"] | None = None
    page: Page = 1
    pageSize: PageSize = 100


class DailyQuestion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    startDate: Milliseconds
    endDate: Milliseconds
    page: Page | None = None
    pageSize: PageSize | None = None


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
        asked = api.spend.soon(api.spend.by_member, organization_id, cycle)
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
    spent = asked.result()
    if body.searchTerm:
        wanted = fold(body.searchTerm)
        rows = [row for row in rows if wanted in fold(f"{row.name} {row.email}")]
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
    start, end = _window(api.control.clock(), body.startDate, body.endDate)
    with api.store.read() as session:
        members = _asked_members(session, organization_id, body)
    dimensions = {
        "cloud_agent_id": body.cloudAgentId,
        "automation_id": body.automationId,
        "hosting_type": body.hostingType,
    }
    wanted = EventFilter(
        organization_id, start, end, members, {k: v for k, v in dimensions.items() if v}
    )
    total = count_events(api.spend, wanted)
    offset = (body.page - 1) * body.pageSize
    rows = list_events(api.spend, wanted, body.pageSize, offset) if offset < total else []
    with api.store.read() as session:
        people = _people(session, organization_id, {row.member_id for row in rows})
    return Json(
        {
            "totalUsageEventsCount": total,
            "pagination": pagination(total, body.page, body.pageSize),
            "usageEvents": [event.shown(people) for event in rows],
            "period": {"startDate": start, "endDate": end},
        }
    )


def _asked_members(
    session: Session, organization_id: str, body: EventsQuestion
) -> list[str] | None:
    """The members that all filters leave; None where none of them names one."""
    asked: list[str] = [one for one in (body.userId, body.serviceAccountId) if one is not None]
    if body.email is not None:
        alias = session.get(MemberAlias, (organization_id, fold(body.email)))
        asked.append(alias.member_id if alias else "")
    if not asked:
        return None
    return asked[:1] if len(set(asked)) == 1 else [""]


def _people(session: Session, organization_id: str, member_ids: Collection[str]) -> People:
    """Who these are, and perhaps others; those that are no members are absent."""
    query = select(Member.id, Member.email, Member.name, Member.kind).where(
        Member.organization_id == organization_id
    )
    if len(member_ids) <= PAGE_MAX:
        query = query.where(Member.id.in_(member_ids))
    rows = session.connection().execute(query)
    return {row[0]: (row[1] or "", row[2], row[3] == "service_account") for row in rows.all()}


@router.post(
    "/daily-usage-data",
    response_model=teams.DailyUsage,
    responses=responses(TeamsError),
    summary="Activity by member and day; at most 30 days",
)
def post_daily(api: ApiPart, caller: Reader, body: DailyQuestion) -> Response:
    organization_id = tenant(caller)
    start, end = _window(api.control.clock(), body.startDate, body.endDate)
    if end - start > DAYS_MAX * 86_400_000:
        raise invalid(f"At most {DAYS_MAX} days.", "body.endDate")
    with api.store.read() as session:
        zone = reading.organization(session, organization_id).time_zone
        known = _member_ids(session, organization_id)
    rows = daily_usage(api.spend, organization_id, start, end, zone)
    answer: dict[str, Any] = {"period": {"startDate": start, "endDate": end}}
    if body.page is not None or body.pageSize is not None:
        page, size = body.page or 1, body.pageSize or 100
        members = sorted({row.member_id for row in rows} | known)
        chosen = set(members[(page - 1) * size : page * size])
        rows = [row for row in rows if row.member_id in chosen]
        pages = ceil(len(members) / size)
        answer["pagination"] = {
            "page": page,
            "pageSize": size,
            "totalUsers": len(members),
            "totalPages": pages,
            "hasNextPage": page < pages,
            "hasPreviousPage": page > 1,
        }
    with api.store.read() as session:
        people = _people(session, organization_id, {row.member_id for row in rows})
    return Json(answer | {"data": [row.shown(people) for row in rows]})


def _member_ids(session: Session, organization_id: str) -> set[str]:
    query = select(Member.id).where(Member.organization_id == organization_id)
    return set(session.connection().scalars(query))


@router.get(
    "/audit-logs",
    response_model=teams.AuditLogs,
    responses=responses(TeamsError),
    summary="Every change: who, when, how, before and after; newest first",
)
def list_audit(
    api: ApiPart,
    caller: Admin,
    start_time: Annotated[int, Query(alias="startTime", ge=0, le=MS_LATEST)] = 0,
    end_time: Annotated[int, Query(alias="endTime", ge=0, le=MS_LATEST)] = MS_LATEST,
    page: Annotated[int, Query(ge=1, le=PAGES_MAX)] = 1,
    page_size: Annotated[int, Query(alias="pageSize", ge=1, le=PAGE_MAX)] = 100,
) -> Response:
    chosen = (
        AuditEntry.organization_id == tenant(caller),
        AuditEntry.at >= moment(start_time),
        AuditEntry.at <= moment(end_time),
    )
    with api.store.read() as session:
        total = session.scalar(select(func.count()).select_from(AuditEntry).where(*chosen)) or 0
        rows = session.scalars(
            select(AuditEntry)
            .where(*chosen)
            .order_by(AuditEntry.id.desc())
            .limit(page_size)
            .offset((page - 1) * page_size)
        ).all()
    return Json(
        {
            "events": [shown_audit(row) for row in rows],
            "pagination": pagination(total, page, page_size),
        }
    )


def shown_audit(row: AuditEntry) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "timestamp": iso(row.at),
        "actor": row.actor,
        "how": row.how,
        "eventType": row.action,
        "subjectType": row.subject_kind,
        "subjectId": row.subject_id,
        "before": row.before,
        "after": row.after,
    }


def pagination(total: int, page: int, size: int) -> dict[str, Any]:
    pages = ceil(total / size)
    return {
        "numPages": pages,
        "currentPage": page,
        "pageSize": size,
        "hasNextPage": page < pages,
        "hasPreviousPage": page > 1,
    }


def moment(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def _window(now: datetime, start: int | None, end: int | None) -> tuple[int, int]:
    """The asked time in milliseconds, both inclusive; by default the last 30 days."""
    last = int(now.timestamp() * 1000) if end is None else end
    first = max(0, last - DAYS_MAX * 86_400_000) if start is None else start
    if first > last:
        raise invalid("The start lies after the end.", "body.startDate")
    return first, last
