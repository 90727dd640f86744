"""`/teams/audit-logs`: who changed what, in Cursor's shape and with its parameters.

Cursor's words for what happened stand where it has one (`EVENT_TYPES`), ours elsewhere. People do
not log in here, so `user_email` names the key or command that made the change.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from sqlalchemy import ColumnElement, Text, cast, func, or_, select
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.errors import Refused, invalid
from api.rules.names import fold
from api.storage.ledgers import AuditEntry
from api.storage.models import MemberAlias
from api.web.admission import KeyedRoute
from api.web.answers import Json, TeamsError, responses
from api.web.context import ADMINS, Allow, ApiPart, Caller
from api.web.shapes import teams
from api.web.shapes.common import iso
from api.web.teams_groups import tenant
from api.web.teams_usage import MS_LATEST, PAGES_MAX

router = APIRouter(
    prefix="/teams", tags=["Usage and spend (Cursor's shapes)"], route_class=KeyedRoute
)

Admin = Annotated[Caller, Depends(Allow(ADMINS, "api", tenant=True))]

PAGE_MAX: Final = 500
DAYS_MAX: Final = 30
DEFAULT_DAYS: Final = 7
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = EPOCH + timedelta(milliseconds=MS_LATEST)
SECONDS_MAX: Final = 10**11
"""A greater number is one of milliseconds: so many seconds end in the year 5138."""
AGO: Final = re.compile(r"(\d{1,9})([dhs])")
UNITS: Final = {"d": "days", "h": "hours", "s": "seconds"}
EVENT_TYPES: Final = {
    "member.create": "add_user",
    "member.activate": "add_user",
    "member.remove": "remove_user",
    "member.deactivate": "remove_user",
    "organization.update": "team_settings",
    "key.create": "team_api_key",
    "key.revoke": "team_api_key",
    "directory_group.create": "create_directory_group",
    "directory_group.rename": "update_directory_group",
    "directory_group.members": "update_directory_group",
    "directory_group.delete": "delete_directory_group",
}
"""Cursor's word by our action."""


def _moment(alias: str) -> Any:
    return Query(
        alias=alias,
        max_length=64,
        description="`now`, `today`, `yesterday`, `7d`, `5h` or `300s` ago, a day, a time in ISO "
        "8601 (UTC where it says no offset), or seconds or milliseconds since 1970.",
        examples=["7d"],
    )


@dataclass(frozen=True, slots=True)
class Question:
    """Cursor's parameters. All that is given must hold."""

    start_time: Annotated[str, _moment("startTime")] = ""
    end_time: Annotated[str, _moment("endTime")] = "now"
    event_types: Annotated[
        str,
        Query(alias="eventTypes", max_length=2_000, description="Words with commas between them."),
    ] = ""
    search: Annotated[str, Query(max_length=256, description="A part of what changed.")] = ""
    users: Annotated[
        str,
        Query(
            max_length=65_536,
            description="Addresses and ids of members that were changed, or of who changed them, "
            "with commas between them; at most `pageSize`.",
        ),
    ] = ""
    page: Annotated[int, Query(ge=1, le=PAGES_MAX)] = 1
    asked_size: Annotated[
        int,
        Query(
            alias="pageSize",
            ge=1,
            le=PAGES_MAX,
            description=f"More than {PAGE_MAX} counts as {PAGE_MAX}.",
        ),
    ] = 100

    @property
    def size(self) -> int:
        return min(self.asked_size, PAGE_MAX)


@router.get(
    "/audit-logs",
    response_model=teams.AuditLogs,
    responses=responses(TeamsError),
    summary="Every change: who, when, how, before and after; newest first",
)
def list_audit(api: ApiPart, caller: Admin, question: Annotated[Question, Depends()]) -> Response:
    """By default the last 7 days; at most 30 days a request."""
    organization_id = tenant(caller)
    start, end = _period(api.control.clock(), question.start_time, question.end_time)
    with api.store.read() as session:
        chosen = [
            AuditEntry.organization_id == organization_id,
            AuditEntry.at >= start,
            AuditEntry.at <= end,
            *_conditions(session, organization_id, question),
        ]
        total = session.scalar(select(func.count()).select_from(AuditEntry).where(*chosen)) or 0
        rows = session.scalars(
            select(AuditEntry)
            .where(*chosen)
            .order_by(AuditEntry.id.desc())
            .limit(question.size)
            .offset((question.page - 1) * question.size)
        ).all()
    return Json(
        {
            "events": [_event_json(row) for row in rows],
            "pagination": _pagination(total, question.page, question.size),
            "params": {
                "teamId": organization_id,
                "startDate": (start - EPOCH) // timedelta(milliseconds=1),
                "endDate": (end - EPOCH) // timedelta(milliseconds=1),
            },
        }
    )


def _conditions(
    session: Session, organization_id: str, question: Question
) -> Iterator[ColumnElement[bool]]:
    if question.event_types:
        yield AuditEntry.action.in_(_actions(_words(question.event_types)))
    if question.search:
        yield _mentions(question.search)
    if question.users:
        yield _concerns(session, organization_id, _words(question.users), question.size)


def _pagination(total: int, page: int, size: int) -> dict[str, Any]:
    pages = ceil(total / size)
    return {
        "page": page,
        "pageSize": size,
        "totalCount": total,
        "totalPages": pages,
        "hasNextPage": page < pages,
        "hasPreviousPage": page > 1,
    }


def _period(now: datetime, start: str, end: str) -> tuple[datetime, datetime]:
    """Both inclusive. Raises Refused (400) for more than 30 days, or none."""
    last = parse_moment(end, now, "endTime")
    first = (
        parse_moment(start, now, "startTime")
        if start
        else max(EPOCH, last - timedelta(days=DEFAULT_DAYS))
    )
    if first > last:
        raise invalid("The start lies after the end.", "startTime")
    if last - first > timedelta(days=DAYS_MAX):
        raise invalid(
            f"The time from startTime to endTime is longer than {DAYS_MAX} days.",
            "endTime",
            "Ask for it in several requests.",
        )
    return first, last


def parse_moment(text: str, now: datetime, where: str) -> datetime:
    """A time in any of Cursor's forms, in UTC. Raises Refused (400)."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    moments = {"now": now, "today": today, "yesterday": today - timedelta(days=1)}
    try:
        if text in moments:
            return moments[text]
        if ago := AGO.fullmatch(text):
            return _bounded(now - timedelta(**{UNITS[ago[2]]: int(ago[1])}), where)
        if text.isascii() and text.isdigit():
            number = int(text)
            unit = "seconds" if number < SECONDS_MAX else "milliseconds"
            return _bounded(EPOCH + timedelta(**{unit: number}), where)
        parsed = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise _no_moment(text, where) from error
    return _bounded(parsed.replace(tzinfo=parsed.tzinfo or UTC), where)


def _bounded(moment: datetime, where: str) -> datetime:
    if not EPOCH <= moment <= LATEST:
        raise invalid("The time must lie between 1970 and 2200.", where)
    return moment.astimezone(UTC)


def _no_moment(text: str, where: str) -> Refused:
    return invalid(
        f"{text!r} is no time.",
        where,
        "Send now, today, yesterday, 7d, 5h, 300s, 2026-11-15, a time in ISO 8601, or seconds or "
        "milliseconds since 1970.",
    )


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _actions(words: Sequence[str]) -> list[str]:
    """Our actions by Cursor's words, or by our own."""
    return [*words, *(action for action, word in EVENT_TYPES.items() if word in words)]


def _mentions(text: str) -> ColumnElement[bool]:
    escaped = json.dumps(text)[1:-1]
    return or_(
        AuditEntry.action.icontains(text, autoescape=True),
        AuditEntry.actor.icontains(text, autoescape=True),
        AuditEntry.subject_id.icontains(text, autoescape=True),
        cast(AuditEntry.before, Text).icontains(escaped, autoescape=True),
        cast(AuditEntry.after, Text).icontains(escaped, autoescape=True),
    )


def _concerns(
    session: Session, organization_id: str, users: Sequence[str], users_max: int
) -> ColumnElement[bool]:
    """Changes to these members, or by these actors. Raises Refused (400) for too many."""
    if len(users) > users_max:
        raise invalid(
            f"There are {len(users)} users; at most `pageSize` may be asked for.", "users"
        )
    addressed = session.scalars(
        select(MemberAlias.member_id).where(
            MemberAlias.organization_id == organization_id,
            MemberAlias.alias_folded.in_([fold(one) for one in users]),
        )
    )
    return or_(
        AuditEntry.actor.in_(users),
        (AuditEntry.subject_kind == "member") & AuditEntry.subject_id.in_([*users, *addressed]),
    )


def _event_json(row: AuditEntry) -> dict[str, Any]:
    return {
        "event_id": str(row.id),
        "timestamp": iso(row.at),
        "ip_address": "",
        "user_email": row.actor,
        "event_type": EVENT_TYPES.get(row.action, row.action),
        "event_data": {
            "action": row.action,
            "how": row.how,
            "subject_type": row.subject_kind,
            "subject_id": row.subject_id,
            "before": row.before,
            "after": row.after,
        },
    }
