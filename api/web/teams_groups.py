"""`/teams/groups`: billing groups in the shapes of Cursor's Admin API (`facts.md` §1).

A script written for Cursor works here with another base address and key. Beyond Cursor's fields
a group also tells `configuredBy`.
"""

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from api import reading
from api.errors import Refused, invalid
from api.reading.billing_calendar import cycle_for
from api.reading.spend import Amount, GroupSpend, cents
from api.rules.change import Change
from api.rules.groups import (
    attach_directory,
    create_group,
    delete_group,
    detach_directory,
    rename_group,
)
from api.rules.memberships import MEMBERS_A_CALL_MAX, add_members, remove_members
from api.storage.models import BillingGroup, Organization
from api.web.admission import KeyedRoute
from api.web.answers import Json, TeamsError, responses
from api.web.context import GROUP_EDITORS, READERS, Allow, Api, ApiPart, Caller, path_id
from api.web.idempotency import NOT_REPEATED, Answer, Once, OncePart, change_once
from api.web.shapes import teams
from api.web.shapes.common import iso
from schemas.cycles import Cycle
from schemas.records import UNASSIGNED

router = APIRouter(
    prefix="/teams", tags=["Billing groups (Cursor's shapes)"], route_class=KeyedRoute
)

Reader = Annotated[Caller, Depends(Allow(READERS, "api", tenant=True))]
Editor = Annotated[Caller, Depends(Allow(GROUP_EDITORS, "api", tenant=True))]
GroupId = Annotated[str, path_id("group_01ARZ3NDEKTSV4RRFFQ69G5FAV", "The group.")]
BillingCycleDay = Annotated[
    date | None,
    Query(
        alias="billingCycle",
        description="A day of the cycle, as `2026-11-15`; default: the current cycle.",
        examples=["2026-11-15"],
    ),
]


class NewTeamsGroup(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=255, examples=["Research"])
    type: Literal["BILLING"] = "BILLING"


class TeamsGroupChange(BaseModel):
    """One of the two; `directoryGroupId: null` detaches."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(default=None, max_length=255, examples=["Applied research"])
    directoryGroupId: str | None = Field(
        default=None, max_length=256, examples=["dir_group_01ARZ3NDEKTSV4RRFFQ69G5FAV"]
    )


class UserIds(BaseModel):
    model_config = ConfigDict(extra="forbid")

    userIds: list[Annotated[str, Field(max_length=256)]] = Field(
        min_length=1, max_length=MEMBERS_A_CALL_MAX, examples=[["user_42"]]
    )


@router.get(
    "/groups",
    response_model=teams.Groups,
    responses=responses(TeamsError),
    summary="Every group with its members and spend of a billing cycle",
)
def list_groups(api: ApiPart, caller: Reader, billing_cycle: BillingCycleDay = None) -> Response:
    organization_id = tenant(caller)
    with api.store.read() as session:
        organization = reading.organization(session, organization_id)
        cycle = cycle_for(
            session, organization_id, billing_cycle, api.control.clock(), where="billingCycle"
        )
        rows = reading.groups(session, organization_id)
        arguments = (organization_id, cycle, {row.id for row in rows})
        days = api.spend.soon(api.spend.by_group_and_day, *arguments)
        people = api.spend.soon(api.spend.by_group_and_member, *arguments)
        current = reading.current_people(session, organization_id)
        former = reading.former_people(session, organization_id, cycle)
        conflicts = reading.sync_conflicts(session, organization_id)
    spent, by_member = days.result(), people.result()
    groups = [
        _reported(
            row,
            current.get(row.id, []),
            former.get(row.id, []),
            spent.get(row.id),
            by_member.get(row.id, {}),
        )
        | _conflicts(conflicts, row.id)
        for row in rows
    ]
    unassigned = _unassigned(
        organization,
        current.get(UNASSIGNED, []),
        spent.get(UNASSIGNED),
        by_member.get(UNASSIGNED, {}),
    ) | _conflicts({}, UNASSIGNED)
    return Json(
        {"groups": groups, "unassignedGroup": unassigned, "billingCycle": shown_cycle(cycle)}
    )


@router.get(
    "/groups/{groupId}",
    response_model=teams.ReportedGroup,
    responses=responses(TeamsError, 404),
    summary="One group; its members with their spend by day",
)
def get_group(
    api: ApiPart,
    caller: Reader,
    groupId: GroupId,
    billing_cycle: BillingCycleDay = None,
) -> Response:
    organization_id = tenant(caller)
    with api.store.read() as session:
        organization = reading.organization(session, organization_id)
        cycle = cycle_for(
            session, organization_id, billing_cycle, api.control.clock(), where="billingCycle"
        )
        row = None if groupId == UNASSIGNED else reading.group(session, organization_id, groupId)
        current = reading.current_people(session, organization_id, groupId)[groupId]
        former = reading.former_people(session, organization_id, cycle, groupId)[groupId]
        live = {one.id for one in reading.groups(session, organization_id)}
        conflicts = reading.sync_conflicts(session, organization_id, groupId)
    spent = api.spend.by_group_and_day(organization_id, cycle, live).get(groupId)
    daily = api.spend.by_member_and_day(organization_id, cycle, live, groupId)
    totals = {member: sum(day.pico for day in days.values()) for member, days in daily.items()}
    if row is None:
        group = _unassigned(organization, current, spent, totals)
    else:
        group = _reported(row, current, former, spent, totals)
    for person in (*current, *former):
        person.daily_spend = _days(daily.get(person.member_id, {}))
    group |= _conflicts(conflicts, groupId)
    return Json({"group": group, "billingCycle": shown_cycle(cycle)})


@router.post(
    "/groups",
    response_model=teams.ChangedGroup,
    responses=responses(TeamsError, 409, 422),
    summary="Create a group",
)
def post_group(api: ApiPart, caller: Editor, once: OncePart, body: NewTeamsGroup) -> Response:
    return _changed(api, caller, lambda change: create_group(change, body.name), once)


@router.patch(
    "/groups/{groupId}",
    response_model=teams.ChangedGroup,
    responses=responses(TeamsError, 404, 409),
    summary="Rename a group, or sync it with a directory group",
)
def patch_group(api: ApiPart, caller: Editor, groupId: GroupId, body: TeamsGroupChange) -> Response:
    fields = body.model_fields_set
    if len(fields) != 1:
        raise invalid("Change one field a request: name, or directoryGroupId.", "body")
    if body.name is not None:
        name = body.name
        return _changed(api, caller, lambda change: rename_group(change, groupId, name))
    if "name" in fields:
        raise invalid("A name cannot be null.", "body.name")
    directory = body.directoryGroupId
    if directory is None:
        return _changed(api, caller, lambda change: detach_directory(change, groupId))
    return _changed(api, caller, lambda change: attach_directory(change, groupId, directory))


@router.delete(
    "/groups/{groupId}",
    status_code=204,
    responses=responses(TeamsError, 404, 409),
    response_class=Response,
    summary="Delete a group for ever: all of its usage, past too, becomes Unassigned",
)
def delete_one(api: ApiPart, caller: Editor, groupId: GroupId) -> Response:
    with api.control.change(tenant(caller), caller.actor()) as change:
        delete_group(change, groupId)
    return Response(status_code=204)


@router.post(
    "/groups/{groupId}/members",
    response_model=teams.ChangedGroup,
    responses=responses(TeamsError, 404, 409, 422),
    summary="Add members who are in no other group",
)
def post_members(
    api: ApiPart, caller: Editor, once: OncePart, groupId: GroupId, body: UserIds
) -> Response:
    def add(change: Change) -> BillingGroup:
        add_members(change, groupId, body.userIds, "userIds")
        return reading.group(change.session, change.organization_id, groupId)

    return _changed(api, caller, add, once)


@router.delete(
    "/groups/{groupId}/members",
    response_model=teams.ChangedGroup,
    responses=responses(TeamsError, 404, 409),
    summary="Make members of the group Unassigned",
)
def delete_members(api: ApiPart, caller: Editor, groupId: GroupId, body: UserIds) -> Response:
    def remove(change: Change) -> BillingGroup:
        remove_members(change, groupId, body.userIds, "userIds")
        return reading.group(change.session, change.organization_id, groupId)

    return _changed(api, caller, remove)


def tenant(caller: Caller) -> str:
    """The key's organization; `Allow(tenant=True)` has made sure that it has one."""
    if caller.organization_id is None:
        raise Refused(403, "forbidden", "This key belongs to no organization.")
    return caller.organization_id


def shown_cycle(cycle: Cycle) -> dict[str, str]:
    return {"cycleStart": iso(cycle.start), "cycleEnd": iso(cycle.end)}


def _changed(
    api: Api, caller: Caller, do: Callable[[Change], BillingGroup], once: Once = NOT_REPEATED
) -> Response:
    def answer(change: Change) -> Answer:
        row = do(change)
        change.session.flush()
        change.session.refresh(row)
        members = _members(change.session, row)
        group = _described(row) | {"memberCount": len(members), "members": members}
        return Answer(200, {"group": group})

    return change_once(api, caller, once, tenant(caller), answer)


def _members(session: Session, row: BillingGroup) -> list[dict[str, Any]]:
    people = reading.current_people(session, row.organization_id, row.id)[row.id]
    return [
        {
            "userId": person.member_id,
            "name": person.name,
            "email": person.email,
            "joinedAt": person.joined_at,
        }
        for person in people
    ]


def _described(row: BillingGroup) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "type": "BILLING",
        "directoryGroupId": row.directory_group_id,
        "configuredBy": row.configured_by,
        "nameConflict": row.name_conflict,
        "createdAt": iso(row.created_at),
        "updatedAt": iso(row.updated_at),
    }


def _conflicts(conflicts: dict[str, list[str]], group_id: str) -> dict[str, Any]:
    """The members of this group whom other synced groups want too, or the other way round."""
    return {
        "syncConflicts": [
            {"userId": member_id, "groupIds": group_ids}
            for member_id, group_ids in conflicts.items()
            if group_id in group_ids
        ]
    }


def _reported(
    row: BillingGroup,
    current: list[reading.Person],
    former: list[reading.Person],
    spent: GroupSpend | None,
    by_member: dict[str, int],
) -> dict[str, Any]:
    return _described(row) | _report(current, former, spent, by_member)


def _unassigned(
    organization: Organization,
    current: list[reading.Person],
    spent: GroupSpend | None,
    by_member: dict[str, int],
) -> dict[str, Any]:
    described = {
        "id": UNASSIGNED,
        "name": "Unassigned",
        "type": "BILLING",
        "directoryGroupId": None,
        "configuredBy": "manual",
        "nameConflict": None,
        "createdAt": iso(organization.created_at),
        "updatedAt": iso(organization.created_at),
    }
    return described | _report(current, [], spent, by_member)


def _report(
    current: list[reading.Person],
    former: list[reading.Person],
    spent: GroupSpend | None,
    by_member: dict[str, int],
) -> dict[str, Any]:
    for person in (*current, *former):
        person.spend_cents = cents(by_member.get(person.member_id, 0))
    here = {person.member_id for person in current} if former else set()
    return {
        "memberCount": len(current),
        "spendCents": spent.total.cents if spent else 0,
        "currentMembers": current,
        "formerMembers": [person for person in former if person.member_id not in here],
        "dailySpend": _days(spent.by_day) if spent else [],
    }


def _days(by_day: dict[date, Amount]) -> list[dict[str, Any]]:
    return [
        {"date": day.isoformat(), "spendCents": amount.cents}
        for day, amount in sorted(by_day.items())
    ]
