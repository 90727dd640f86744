"""`/teams/daily-usage-data`: activity by member and day, in Cursor's shape."""

from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from sqlalchemy import or_, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from api import reading
from api.errors import invalid
from api.reading.usage import DayOfMember, People, daily_usage, idle_day
from api.storage.models import Member
from api.web.admission import KeyedRoute
from api.web.answers import Json, TeamsError, responses
from api.web.context import ApiPart
from api.web.shapes import teams
from api.web.teams_groups import Reader, tenant
from api.web.teams_usage import DAYS_MAX, Milliseconds, Page, PageSize, people_of, window

router = APIRouter(
    prefix="/teams", tags=["Usage and spend (Cursor's shapes)"], route_class=KeyedRoute
)

DAY_MS: Final = 86_400_000


class DailyQuestion(BaseModel):
    """Dates are milliseconds, both inclusive; by default the last 30 days."""

    model_config = ConfigDict(extra="forbid")

    startDate: Milliseconds | None = None
    endDate: Milliseconds | None = None
    page: Page | None = None
    pageSize: PageSize | None = None


@router.post(
    "/daily-usage-data",
    response_model=teams.DailyUsage,
    responses=responses(TeamsError),
    summary="Activity by member and day; at most 30 days and a part",
)
def post_daily(api: ApiPart, caller: Reader, body: DailyQuestion) -> Response:
    """Only days with activity; with `page` or `pageSize` every day of every member of the page."""
    organization_id = tenant(caller)
    start, end = window(api.control.clock(), body.startDate, body.endDate)
    if (end - start) // DAY_MS > DAYS_MAX:
        raise invalid(f"At most {DAYS_MAX} days.", "body.endDate")
    with api.store.read() as session:
        zone = reading.organization(session, organization_id).time_zone
    active = daily_usage(api.spend, organization_id, start, end, zone)
    answer: dict[str, Any] = {"period": {"startDate": start, "endDate": end}}
    with api.store.read() as session:
        if body.page is None and body.pageSize is None:
            rows = list(active.values())
            people = people_of(session, organization_id, {row.userId for row in rows})
        else:
            here = _members(session, organization_id, start, end)
            members = sorted({row.userId for row in active.values()} | here)
            page, size = body.page or 1, body.pageSize or 100
            chosen = members[(page - 1) * size : page * size]
            rows = [
                active.get((member_id, day)) or idle_day(member_id, "", day)
                for day in _days(start, end, ZoneInfo(zone))
                for member_id in chosen
            ]
            people = people_of(session, organization_id, chosen)
            answer["pagination"] = _pagination(len(members), page, size)
    return Json(answer | {"data": _addressed(rows, people)})


def _members(session: Session, organization_id: str, start_ms: int, end_ms: int) -> set[str]:
    """Who was a member at some time of the period."""
    query = select(Member.id).where(
        Member.organization_id == organization_id,
        Member.created_at <= moment(end_ms),
        or_(Member.removed_at.is_(None), Member.removed_at >= moment(start_ms)),
    )
    return set(session.connection().scalars(query))


def _days(start_ms: int, end_ms: int, zone: ZoneInfo) -> list[Any]:
    """The days of the organization's calendar that the period touches."""
    first, last = (moment(one).astimezone(zone).date() for one in (start_ms, end_ms))
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _addressed(rows: list[DayOfMember], people: People) -> list[DayOfMember]:
    for row in rows:
        row.email = people.get(row.userId, ("", "", False))[0]
    return rows


def _pagination(members: int, page: int, size: int) -> dict[str, Any]:
    pages = ceil(members / size)
    return {
        "page": page,
        "pageSize": size,
        "totalUsers": members,
        "totalPages": pages,
        "hasNextPage": page < pages,
        "hasPreviousPage": page > 1,
    }


def moment(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
