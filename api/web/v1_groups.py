"""`/v1/organizations/…`: groups, their members, moves, directory groups."""

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from sqlalchemy.orm import Session
from starlette.responses import Response

from api import reading
from api.errors import invalid
from api.reading import lists
from api.reading.billing_calendar import cycle_for
from api.reading.spend import Amount
from api.rules import groups as group_rules
from api.rules.change import Change
from api.rules.memberships import add_members, move_members, remove_members
from api.storage.models import BillingGroup, DirectoryGroup, Organization
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import (
    GROUP_EDITORS,
    READERS,
    Allow,
    ApiPart,
    Caller,
    OrganizationId,
    path_id,
)
from api.web.idempotency import Answer, OncePart, change_once
from api.web.pages import Paging, page
from api.web.shapes import v1
from api.web.shapes.common import iso
from schemas.records import UNASSIGNED

router = APIRouter(
    prefix="/v1/organizations/{organization_id}", tags=["Groups"], route_class=KeyedRoute
)

Reader = Annotated[Caller, Depends(Allow(READERS, "api"))]
Editor = Annotated[Caller, Depends(Allow(GROUP_EDITORS, "api"))]
GroupId = Annotated[str, path_id("group_01ARZ3NDEKTSV4RRFFQ69G5FAV", "The group.")]


@router.get(
    "/groups",
    response_model=v1.GroupTable,
    responses=responses(Error, 404),
    summary="The groups table: how each is configured, its members and spend of a cycle",
)
def list_groups(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    billing_cycle: Annotated[date | None, Query(description="A day of the cycle.")] = None,
    search: Annotated[
        str, Query(max_length=255, description="A part of the name, in any case, or the whole id.")
    ] = "",
    configured_by: Annotated[Literal["scim", "api", "csv", "manual"] | None, Query()] = None,
) -> Response:
    """Unassigned is always there, whatever is searched for."""
    with api.store.read() as session:
        organization = reading.organization(session, organization_id)
        cycle = cycle_for(session, organization_id, billing_cycle, api.control.clock())
        rows = reading.groups(session, organization_id)
        counts = reading.member_counts(session, organization_id)
        directories = reading.directory_names(session, organization_id)
    spent = api.spend.by_group(organization_id, cycle, {row.id for row in rows})
    unassigned = _unassigned(organization, counts[UNASSIGNED])
    return Json(
        {
            "items": [
                _group_json(row, counts.get(row.id, 0), directories) | _spend(spent.get(row.id))
                for row in reading.matching(rows, search, configured_by)
            ],
            "unassigned": unassigned | _spend(spent.get(UNASSIGNED)),
            "cycle_start": iso(cycle.start),
            "cycle_end": iso(cycle.end),
        }
    )


def _unassigned(organization: Organization, count: int) -> dict[str, Any]:
    """Where members without a group are: shown as a group, though there is no row of it."""
    return {
        "id": UNASSIGNED,
        "name": "Unassigned",
        "configured_by": "manual",
        "directory_group_id": None,
        "directory_group_name": None,
        "name_conflict": None,
        "member_count": count,
        "created_at": iso(organization.created_at),
        "updated_at": iso(organization.created_at),
    }


def _spend(amount: Amount | None) -> dict[str, Any]:
    return {
        "spend_micro": amount.micro if amount else 0,
        "spend_cents": amount.cents if amount else 0.0,
    }


def _group_json(row: BillingGroup, count: int, directories: dict[str, str]) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "configured_by": row.configured_by,
        "directory_group_id": row.directory_group_id,
        "directory_group_name": directories.get(row.directory_group_id or ""),
        "name_conflict": row.name_conflict,
        "member_count": count,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }


@router.get(
    "/groups/{group_id}",
    response_model=v1.OneGroup,
    responses=responses(Error, 404),
    summary="One group, every name it had, and members whom several synced groups want",
)
def get_group(
    api: ApiPart, caller: Reader, organization_id: OrganizationId, group_id: GroupId
) -> Response:
    with api.store.read() as session:
        return Json(_one(session, organization_id, group_id))


def _one(session: Session, organization_id: str, group_id: str) -> dict[str, Any]:
    counts = reading.member_counts(session, organization_id)
    if group_id == UNASSIGNED:
        organization = reading.organization(session, organization_id)
        no_history: dict[str, Any] = {"names": [], "sync_conflicts": []}
        return _unassigned(organization, counts[UNASSIGNED]) | no_history
    row = reading.group(session, organization_id, group_id)
    names = session.scalars(lists.group_names(organization_id, group_id))
    conflicts = reading.sync_conflicts(session, organization_id, group_id)
    return _group_json(
        row, counts.get(group_id, 0), reading.directory_names(session, organization_id)
    ) | {
        "names": [
            {
                "name": name.name,
                "valid_from": iso(name.valid_from),
                "valid_to": iso(name.valid_to) if name.valid_to else None,
            }
            for name in names
        ],
        "sync_conflicts": [
            {"member_id": member_id, "group_ids": group_ids}
            for member_id, group_ids in conflicts.items()
        ],
    }


@router.post(
    "/groups",
    status_code=201,
    response_model=v1.OneGroup,
    responses=responses(Error, 404, 409, 422),
    summary="Create a group",
)
def post_group(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    body: v1.NewGroup,
) -> Response:
    def create(change: Change) -> Answer:
        row = group_rules.create_group(change, body.name, body.id)
        return Answer(201, _one(change.session, organization_id, row.id))

    return change_once(api, caller, once, organization_id, create)


@router.patch(
    "/groups/{group_id}",
    response_model=v1.OneGroup,
    responses=responses(Error, 404, 409),
    summary="Rename a group, sync it with a directory group, or end that",
)
def patch_group(
    api: ApiPart,
    caller: Editor,
    organization_id: OrganizationId,
    group_id: GroupId,
    body: v1.GroupChange,
) -> Response:
    fields_set = body.model_fields_set
    if not fields_set or ("name" in fields_set and body.name is None):
        raise invalid("Nothing to change is given.", "body")
    with api.control.change(organization_id, caller.actor()) as change:
        if body.name is not None:
            group_rules.rename_group(change, group_id, body.name)
        if body.directory_group_id is not None:
            group_rules.attach_directory(change, group_id, body.directory_group_id)
        elif "directory_group_id" in fields_set:
            group_rules.detach_directory(change, group_id)
        return Json(_one(change.session, organization_id, group_id))


@router.delete(
    "/groups/{group_id}",
    status_code=204,
    response_class=Response,
    responses=responses(Error, 404, 409),
    summary="Delete a group for ever: all of its usage, past too, becomes Unassigned",
)
def delete_group(
    api: ApiPart,
    caller: Editor,
    organization_id: OrganizationId,
    group_id: GroupId,
    confirm_name: Annotated[str, Query(max_length=255, description="The group's name, typed.")],
) -> Response:
    with api.control.change(organization_id, caller.actor()) as change:
        group_rules.delete_group(change, group_id, confirm_name)
    return Response(status_code=204)


@router.post(
    "/groups/{group_id}/members",
    response_model=v1.OneGroup,
    responses=responses(Error, 404, 409, 422),
    summary="Add Unassigned members",
)
def post_members(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    group_id: GroupId,
    body: v1.MemberIds,
) -> Response:
    def add(change: Change) -> Answer:
        add_members(change, group_id, body.member_ids, "member_ids")
        return Answer(200, _one(change.session, organization_id, group_id))

    return change_once(api, caller, once, organization_id, add)


@router.post(
    "/groups/{group_id}/members/remove",
    response_model=v1.OneGroup,
    responses=responses(Error, 404, 409, 422),
    summary="Make members of the group Unassigned",
)
def post_removal(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    group_id: GroupId,
    body: v1.MemberIds,
) -> Response:
    def remove(change: Change) -> Answer:
        remove_members(change, group_id, body.member_ids, "member_ids")
        return Answer(200, _one(change.session, organization_id, group_id))

    return change_once(api, caller, once, organization_id, remove)


@router.post(
    "/moves",
    response_model=v1.Moved,
    responses=responses(Error, 404, 409, 422),
    summary="Move members, each to its group, all in one step or none",
)
def post_moves(
    api: ApiPart, caller: Editor, once: OncePart, organization_id: OrganizationId, body: v1.Moves
) -> Response:
    moves = {move.member_id: move.group_id for move in body.moves}
    if len(moves) != len(body.moves):
        raise invalid("A member is named twice.", "moves")

    def move(change: Change) -> Answer:
        move_members(change, moves)
        return Answer(200, {"moved": len(moves)})

    return change_once(api, caller, once, organization_id, move)


@router.get(
    "/directory-groups",
    response_model=v1.DirectoryGroups,
    responses=responses(Error, 404),
    summary="The identity provider's groups, to sync billing groups with",
)
def list_directory_groups(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    paging: Paging,
) -> Response:
    query = lists.directory_groups(organization_id)
    with api.store.read() as session:
        reading.organization(session, organization_id)
        return Json(page(session, paging, query, DirectoryGroup.id, _shown_directory))


def _shown_directory(
    row: DirectoryGroup, member_count: int, group_id: str | None
) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "external_id": row.external_id,
        "member_count": member_count,
        "group_id": group_id,
    }
