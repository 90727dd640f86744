"""`/v1/organizations/…`: members, their aliases, and websites."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import select
from starlette.responses import Response

from api import reading
from api.errors import not_found
from api.reading import lists
from api.rules import members as member_rules
from api.rules import websites as website_rules
from api.rules.change import Change
from api.rules.memberships import move_members
from api.storage.models import Member, Membership, Website
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
    path_id,
)
from api.web.idempotency import Answer, OncePart, change_once
from api.web.pages import Paging, page
from api.web.shapes import v1
from api.web.shapes.common import iso
from schemas.records import UNASSIGNED

router = APIRouter(
    prefix="/v1/organizations/{organization_id}",
    tags=["Members and websites"],
    route_class=KeyedRoute,
)

Reader = Annotated[Caller, Depends(Allow(READERS, "api"))]
Editor = Annotated[Caller, Depends(Allow(GROUP_EDITORS, "api"))]
Admin = Annotated[Caller, Depends(Allow(ADMINS, "api"))]
MemberId = Annotated[str, path_id("user_42", "The member.")]
WebsiteId = Annotated[str, path_id("web_3", "The website.")]


@router.get(
    "/members",
    response_model=v1.Members,
    responses=responses(Error, 404),
    summary="Members with their groups; those of one group where `group_id` is given",
)
def list_members(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    paging: Paging,
    group_id: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    query = lists.members(organization_id, group_id)
    with api.store.read() as session:
        reading.organization(session, organization_id)
        return Json(page(session, paging, query, Member.id, shown_member))


def shown_member(row: Member, group_id: str | None) -> dict[str, Any]:
    return {
        "id": row.id,
        "email": row.email,
        "name": row.name,
        "role": row.role,
        "kind": row.kind,
        "active": row.active,
        "removed": row.removed_at is not None,
        "group_id": group_id or UNASSIGNED,
        "created_at": iso(row.created_at),
    }


def _with_group(change: Change, row: Member) -> dict[str, Any]:
    membership = change.session.get(Membership, (change.organization_id, row.id))
    return shown_member(row, membership.group_id if membership else None)


@router.get(
    "/members/{member_id}",
    response_model=v1.Member,
    responses=responses(Error, 404),
    summary="One member",
)
def get_member(
    api: ApiPart, caller: Reader, organization_id: OrganizationId, member_id: MemberId
) -> Response:
    with api.store.read() as session:
        row = session.get(Member, (organization_id, member_id))
        membership = session.get(Membership, (organization_id, member_id))
    if row is None or row.erased_at is not None:
        raise not_found("member", member_id, "member_id")
    return Json(shown_member(row, membership.group_id if membership else None))


@router.post(
    "/members",
    status_code=201,
    response_model=v1.Member,
    responses=responses(Error, 404, 409, 422),
    summary="Somebody joins, Unassigned; who had left with this address comes back",
)
def post_member(
    api: ApiPart,
    caller: Admin,
    once: OncePart,
    organization_id: OrganizationId,
    body: v1.NewMember,
) -> Response:
    new = member_rules.NewMember(body.email, body.name, body.role, body.kind, body.id)

    def create(change: Change) -> Answer:
        return Answer(201, _with_group(change, member_rules.rejoin_or_create(change, new)))

    return change_once(api, caller, once, organization_id, create)


@router.patch(
    "/members/{member_id}",
    response_model=v1.Member,
    responses=responses(Error, 404, 409),
    summary="Change name, address or role",
)
def patch_member(
    api: ApiPart,
    caller: Admin,
    organization_id: OrganizationId,
    member_id: MemberId,
    body: v1.MemberChange,
) -> Response:
    with api.control.change(organization_id, caller.actor()) as change:
        row = member_rules.update_member(
            change, member_id, email=body.email, name=body.name, role=body.role
        )
        return Json(_with_group(change, row))


@router.delete(
    "/members/{member_id}",
    status_code=204,
    response_class=Response,
    responses=responses(Error, 404, 409),
    summary="The member leaves; usage so far stays",
)
def delete_member(
    api: ApiPart,
    caller: Admin,
    organization_id: OrganizationId,
    member_id: MemberId,
) -> Response:
    with api.control.change(organization_id, caller.actor()) as change:
        member_rules.remove_member(change, member_id)
    return Response(status_code=204)


@router.post(
    "/members/{member_id}/move",
    response_model=v1.Member,
    responses=responses(Error, 404, 409, 422),
    summary="Move one member in one step",
)
def post_move(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    member_id: MemberId,
    body: v1.GroupRef,
) -> Response:
    def move(change: Change) -> Answer:
        move_members(change, {member_id: body.group_id})
        row = member_rules.get_member(change, member_id)
        return Answer(200, _with_group(change, row))

    return change_once(api, caller, once, organization_id, move)


@router.get(
    "/members/{member_id}/aliases",
    response_model=v1.Aliases,
    responses=responses(Error, 404),
    summary="Every address under which the member's usage may arrive",
)
def list_aliases(
    api: ApiPart, caller: Reader, organization_id: OrganizationId, member_id: MemberId
) -> Response:
    with api.store.read() as session:
        row = session.get(Member, (organization_id, member_id))
        if row is None or row.erased_at is not None:
            raise not_found("member", member_id, "member_id")
        texts = reading.aliases(session, organization_id, member_id)
    return Json({"member_id": member_id, "aliases": texts})


@router.post(
    "/members/{member_id}/aliases",
    status_code=201,
    response_model=v1.Aliases,
    responses=responses(Error, 404, 409, 422),
    summary="One more address for a member",
)
def post_alias(
    api: ApiPart,
    caller: Admin,
    once: OncePart,
    organization_id: OrganizationId,
    member_id: MemberId,
    body: v1.NewAlias,
) -> Response:
    def add(change: Change) -> Answer:
        member_rules.add_alias(change, member_id, body.alias)
        texts = reading.aliases(change.session, organization_id, member_id)
        return Answer(201, {"member_id": member_id, "aliases": texts})

    return change_once(api, caller, once, organization_id, add)


@router.delete(
    "/members/{member_id}/aliases/{alias:path}",
    status_code=204,
    response_class=Response,
    responses=responses(Error, 404, 409),
    summary="The address is nobody's any more",
)
def delete_alias(
    api: ApiPart,
    caller: Admin,
    organization_id: OrganizationId,
    member_id: MemberId,
    alias: Annotated[str, path_id("a.nn@example.com", "The address.")],
) -> Response:
    with api.control.change(organization_id, caller.actor()) as change:
        member_rules.remove_alias(change, member_id, alias)
    return Response(status_code=204)


@router.get(
    "/websites", response_model=v1.Websites, responses=responses(Error, 404), summary="Websites"
)
def list_websites(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    paging: Paging,
) -> Response:
    with api.store.read() as session:
        reading.organization(session, organization_id)
        query = select(Website).where(Website.organization_id == organization_id)
        return Json(page(session, paging, query, Website.id, shown_website))


@router.post(
    "/websites",
    status_code=201,
    response_model=v1.Website,
    responses=responses(Error, 404, 409, 422),
    summary="Create a website",
)
def post_website(
    api: ApiPart,
    caller: Admin,
    once: OncePart,
    organization_id: OrganizationId,
    body: v1.NewWebsite,
) -> Response:
    def create(change: Change) -> Answer:
        row = website_rules.create_website(change, body.name, body.group_id, body.id)
        return Answer(201, shown_website(row))

    return change_once(api, caller, once, organization_id, create)


@router.patch(
    "/websites/{website_id}",
    response_model=v1.Website,
    responses=responses(Error, 404, 409),
    summary="Another name, another group, or both",
)
def patch_website(
    api: ApiPart,
    caller: Admin,
    organization_id: OrganizationId,
    website_id: WebsiteId,
    body: v1.WebsiteChange,
) -> Response:
    with api.control.change(organization_id, caller.actor()) as change:
        row = website_rules.update_website(change, website_id, body.name, body.group_id)
        return Json(shown_website(row))


def shown_website(row: Website) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "group_id": row.group_id or UNASSIGNED,
        "created_at": iso(row.created_at),
    }
