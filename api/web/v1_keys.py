"""`/v1`: API keys and SCIM tokens, and the audit log."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from sqlalchemy import select
from starlette.responses import Response

from api import reading
from api.rules import keys as key_rules
from api.rules.change import Transaction
from api.storage.ledgers import ApiKey, AuditEntry
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import (
    ADMINS,
    OPERATORS,
    Allow,
    Api,
    ApiPart,
    Caller,
    OrganizationId,
    path_id,
)
from api.web.idempotency import Answer, Once, OncePart, transact_once
from api.web.pages import Page, Paging, page
from api.web.shapes import v1
from api.web.shapes.common import iso

router = APIRouter(prefix="/v1", tags=["Keys and audit"], route_class=KeyedRoute)

Admin = Annotated[Caller, Depends(Allow(ADMINS, "api"))]
Operator = Annotated[Caller, Depends(Allow(OPERATORS, "api"))]
KeyId = Annotated[str, path_id("key_01ARZ3NDEKTSV4RRFFQ69G5FAV", "The key's id, not its secret.")]
ONE = "/organizations/{organization_id}/keys"


@router.get(
    ONE,
    response_model=v1.Keys,
    responses=responses(Error, 404),
    summary="An organization's keys and SCIM tokens, without their secrets",
)
def list_keys(
    api: ApiPart,
    caller: Admin,
    organization_id: OrganizationId,
    paging: Paging,
) -> Response:
    return _listed(api, organization_id, paging)


@router.post(
    ONE,
    status_code=201,
    response_model=v1.NewSecret,
    responses=responses(Error, 404, 422),
    summary="Make a key; its secret is shown this once",
)
def post_key(
    api: ApiPart, caller: Admin, once: OncePart, organization_id: OrganizationId, body: v1.NewKey
) -> Response:
    return _created(api, caller, once, organization_id, body)


@router.post(
    ONE + "/{key_id}/rotate",
    status_code=201,
    response_model=v1.NewSecret,
    responses=responses(Error, 404, 422),
    summary="A new secret; the old one ends at once",
)
def post_rotation(
    api: ApiPart, caller: Admin, once: OncePart, organization_id: OrganizationId, key_id: KeyId
) -> Response:
    return _rotated(api, caller, once, organization_id, key_id)


@router.delete(
    ONE + "/{key_id}",
    status_code=204,
    response_class=Response,
    responses=responses(Error, 404),
    summary="Revoke a key, at once and for ever",
)
def delete_key(
    api: ApiPart, caller: Admin, organization_id: OrganizationId, key_id: KeyId
) -> Response:
    with api.control.transaction(caller.actor(), organization_id) as transaction:
        key_rules.revoke_key(transaction, key_id, organization_id)
    return Response(status_code=204)


@router.get(
    "/keys",
    response_model=v1.Keys,
    responses=responses(Error),
    summary="Keys that are bound to no organization",
)
def list_platform_keys(api: ApiPart, caller: Operator, paging: Paging) -> Response:
    return _listed(api, None, paging)


@router.post(
    "/keys",
    status_code=201,
    response_model=v1.NewSecret,
    responses=responses(Error, 422),
    summary="Make an operator's key, or one to ingest for every organization",
)
def post_platform_key(api: ApiPart, caller: Operator, once: OncePart, body: v1.NewKey) -> Response:
    return _created(api, caller, once, None, body)


@router.post(
    "/keys/{key_id}/rotate",
    status_code=201,
    response_model=v1.NewSecret,
    responses=responses(Error, 404, 422),
    summary="A new secret; the old one ends at once",
)
def post_platform_rotation(
    api: ApiPart, caller: Operator, once: OncePart, key_id: KeyId
) -> Response:
    return _rotated(api, caller, once, None, key_id)


@router.delete(
    "/keys/{key_id}",
    status_code=204,
    response_class=Response,
    responses=responses(Error, 404),
    summary="Revoke a key, at once and for ever",
)
def delete_platform_key(api: ApiPart, caller: Operator, key_id: KeyId) -> Response:
    with api.control.transaction(caller.actor()) as transaction:
        key_rules.revoke_key(transaction, key_id, None)
    return Response(status_code=204)


def _listed(api: Api, organization_id: str | None, paging: Page) -> Response:
    query = select(ApiKey).where(ApiKey.organization_id == organization_id)
    with api.store.read() as session:
        if organization_id is not None:
            reading.organization(session, organization_id)
        return Json(page(session, paging, query, ApiKey.id, shown_key))


def _created(
    api: Api, caller: Caller, once: Once, organization_id: str | None, body: v1.NewKey
) -> Response:
    def create(transaction: Transaction) -> Answer:
        scope = key_rules.Scope(body.scope)
        return _answer(
            key_rules.create_key(
                transaction, scope, body.name, organization_id, body.expires_at, body.group_id
            )
        )

    return transact_once(api, caller, once, organization_id, create)


def _rotated(
    api: Api, caller: Caller, once: Once, organization_id: str | None, key_id: str
) -> Response:
    def rotate(transaction: Transaction) -> Answer:
        return _answer(key_rules.rotate_key(transaction, key_id, organization_id))

    return transact_once(api, caller, once, organization_id, rotate)


def _answer(new: key_rules.NewKey) -> Answer:
    key_json = shown_key(new.key)
    return Answer(201, key_json | {"secret": new.secret}, kept=key_json | {"secret": None})


def shown_key(row: ApiKey) -> dict[str, Any]:
    return {
        "id": row.id,
        "scope": row.scope,
        "name": row.name,
        "hint": row.hint,
        "organization_id": row.organization_id,
        "group_id": row.group_id,
        "created_at": iso(row.created_at),
        "expires_at": iso(row.expires_at),
        "revoked_at": iso(row.revoked_at) if row.revoked_at else None,
    }


@router.get(
    "/organizations/{organization_id}/audit",
    response_model=v1.AuditEntries,
    responses=responses(Error, 404),
    summary="Every change, newest first",
)
def list_audit(
    api: ApiPart,
    caller: Admin,
    organization_id: OrganizationId,
    paging: Paging,
) -> Response:
    query = select(AuditEntry).where(AuditEntry.organization_id == organization_id)
    with api.store.read() as session:
        reading.organization(session, organization_id)
        return Json(page(session, paging, query, AuditEntry.id, _shown_audit, newest_first=True))


@router.get(
    "/audit",
    response_model=v1.AuditEntries,
    responses=responses(Error),
    summary="Changes that belong to no organization, newest first",
)
def list_platform_audit(api: ApiPart, caller: Operator, paging: Paging) -> Response:
    query = select(AuditEntry).where(AuditEntry.organization_id.is_(None))
    with api.store.read() as session:
        return Json(page(session, paging, query, AuditEntry.id, _shown_audit, newest_first=True))


def _shown_audit(row: AuditEntry) -> dict[str, Any]:
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
