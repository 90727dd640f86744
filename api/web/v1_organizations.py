"""`/v1/organizations`: organizations, their settings, price books, grants and adjustments."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from sqlalchemy import select
from starlette.responses import Response

from api import reading
from api.rules import credits as credit_rules
from api.rules import prices as price_rules
from api.rules.change import Change, Transaction
from api.rules.organizations import (
    OrganizationSettings,
    change_settings,
    create_organization,
    settings_of,
)
from api.storage.ledgers import Grant, Price
from api.storage.models import Organization
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import OPERATORS, READERS, Allow, ApiPart, Caller, OrganizationId, path_id
from api.web.idempotency import Answer, OncePart, change_once, transact_once
from api.web.pages import Paging, page
from api.web.shapes import v1
from api.web.shapes.common import iso

router = APIRouter(prefix="/v1", tags=["Organizations, prices and credits"], route_class=KeyedRoute)

Operator = Annotated[Caller, Depends(Allow(OPERATORS, "api"))]
Reader = Annotated[Caller, Depends(Allow(READERS, "api"))]
AnyReader = Annotated[Caller, Depends(Allow(READERS, "api", every_group=True))]


@router.post(
    "/organizations",
    status_code=201,
    response_model=v1.Organization,
    responses=responses(Error, 409, 422),
    summary="Create an organization",
)
def post_organization(
    api: ApiPart, caller: Operator, once: OncePart, body: v1.NewOrganization
) -> Response:
    settings = OrganizationSettings(
        body.funding_group,
        body.credit_price_micro,
        body.currency,
        body.billing_anchor_day,
        body.time_zone,
    )

    def create(transaction: Transaction) -> Answer:
        change = create_organization(transaction, body.name, settings, body.id, body.effective_at)
        return Answer(201, shown_organization(change.organization))

    return transact_once(api, caller, once, None, create)


@router.get(
    "/organizations",
    response_model=v1.Organizations,
    responses=responses(Error),
    summary="All organizations",
)
def list_organizations(api: ApiPart, caller: Operator, paging: Paging) -> Response:
    with api.store.read() as session:
        return Json(
            page(session, paging, select(Organization), Organization.id, shown_organization)
        )


@router.get(
    "/organizations/{organization_id}",
    response_model=v1.Organization,
    responses=responses(Error, 404),
    summary="One organization",
)
def get_organization(api: ApiPart, caller: AnyReader, organization_id: OrganizationId) -> Response:
    with api.store.read() as session:
        return Json(shown_organization(reading.organization(session, organization_id)))


@router.patch(
    "/organizations/{organization_id}",
    response_model=v1.Organization,
    responses=responses(Error, 404),
    summary="Change settings, from now on",
)
def patch_organization(
    api: ApiPart, caller: Operator, organization_id: OrganizationId, body: v1.OrganizationChange
) -> Response:
    changes = body.model_dump(exclude_none=True)
    name = changes.pop("name", None)
    with api.control.change(organization_id, caller.actor()) as change:
        settings = settings_of(change.organization)
        fields = {field: getattr(settings, field) for field in settings.__slots__}
        change_settings(change, name, OrganizationSettings(**fields | changes))
        return Json(shown_organization(change.organization))


def shown_organization(row: Organization) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "funding_group": row.funding_group,
        "credit_price_micro": row.credit_price_micro,
        "currency": row.currency,
        "billing_anchor_day": row.billing_anchor_day,
        "time_zone": row.time_zone,
        "created_at": iso(row.created_at),
    }


@router.post(
    "/organizations/{organization_id}/prices",
    status_code=201,
    response_model=v1.Price,
    responses=responses(Error, 404, 422),
    summary="Set a price of the organization's own book",
)
def post_price(
    api: ApiPart,
    caller: Operator,
    once: OncePart,
    organization_id: OrganizationId,
    body: v1.NewPrice,
) -> Response:
    new = price_rules.NewPrice(body.meter, body.micro_per_million_units, body.effective_at)

    def set_price(change: Change) -> Answer:
        return Answer(201, _shown_price(price_rules.set_price(change, new)))

    return change_once(api, caller, once, organization_id, set_price)


@router.get(
    "/organizations/{organization_id}/prices",
    response_model=v1.Prices,
    responses=responses(Error, 404),
    summary="Both price books as they hold for an organization",
)
def list_prices(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    paging: Paging,
) -> Response:
    with api.store.read() as session:
        reading.organization(session, organization_id)
        query = select(Price).where(
            (Price.organization_id == organization_id) | Price.organization_id.is_(None)
        )
        return Json(page(session, paging, query, Price.id, _shown_price))


@router.post(
    "/prices",
    status_code=201,
    response_model=v1.Price,
    responses=responses(Error, 422),
    summary="Set a price of the default book, for every organization",
)
def post_default_price(
    api: ApiPart, caller: Operator, once: OncePart, body: v1.NewPrice
) -> Response:
    new = price_rules.NewPrice(body.meter, body.micro_per_million_units, body.effective_at)

    def set_price(transaction: Transaction) -> Answer:
        return Answer(201, _shown_price(price_rules.set_default_price(transaction, new)))

    return transact_once(api, caller, once, None, set_price)


def _shown_price(row: Price) -> dict[str, Any]:
    return {
        "meter": row.meter,
        "micro_per_million_units": row.micro_per_million_units,
        "effective_at": iso(row.effective_at),
        "book": "organization" if row.organization_id else "default",
    }


@router.post(
    "/organizations/{organization_id}/grants",
    status_code=201,
    response_model=v1.Grant,
    responses=responses(Error, 404, 409, 422),
    summary="Grant credits to a website or group",
)
def post_grant(
    api: ApiPart,
    caller: Operator,
    once: OncePart,
    organization_id: OrganizationId,
    body: v1.NewGrant,
) -> Response:
    new = credit_rules.NewGrant(
        body.pool_kind,
        body.pool_id,
        body.kind,
        body.amount_micro,
        body.source,
        body.effective_at,
        body.expires_at,
        body.awaiting_payment,
        body.id,
    )

    def grant(change: Change) -> Answer:
        return Answer(201, _shown_grant(credit_rules.grant(change, new)))

    return change_once(api, caller, once, organization_id, grant)


@router.get(
    "/organizations/{organization_id}/grants",
    response_model=v1.Grants,
    responses=responses(Error, 404),
    summary="Every grant",
)
def list_grants(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    paging: Paging,
) -> Response:
    with api.store.read() as session:
        reading.organization(session, organization_id)
        query = select(Grant).where(Grant.organization_id == organization_id)
        return Json(page(session, paging, query, Grant.id, _shown_grant))


@router.post(
    "/organizations/{organization_id}/grants/{grant_id}/revocations",
    status_code=201,
    response_model=v1.Grant,
    responses=responses(Error, 404, 409, 422),
    summary="Take a grant back, whole or in part",
)
def post_revocation(
    api: ApiPart,
    caller: Operator,
    once: OncePart,
    organization_id: OrganizationId,
    grant_id: Annotated[str, path_id("grant_42", "The grant.")],
    body: v1.Revocation,
) -> Response:
    def revoke(change: Change) -> Answer:
        row = credit_rules.revoke(change, grant_id, body.amount_micro, body.why)
        return Answer(201, _shown_grant(row))

    return change_once(api, caller, once, organization_id, revoke)


@router.post(
    "/organizations/{organization_id}/adjustments",
    status_code=201,
    response_model=v1.Adjusted,
    responses=responses(Error, 404, 409, 422),
    summary="Correct a pool by hand",
)
def post_adjustment(
    api: ApiPart,
    caller: Operator,
    once: OncePart,
    organization_id: OrganizationId,
    body: v1.Adjustment,
) -> Response:
    def adjust(change: Change) -> Answer:
        version = credit_rules.adjust(
            change, body.pool_kind, body.pool_id, body.amount_micro, body.why
        )
        return Answer(201, {"version": version})

    return change_once(api, caller, once, organization_id, adjust)


def _shown_grant(row: Grant) -> dict[str, Any]:
    return {
        "id": row.id,
        "pool_kind": row.pool_kind,
        "pool_id": row.pool_id,
        "kind": row.kind,
        "amount_micro": row.amount_micro,
        "revoked_micro": row.revoked_micro,
        "source": row.source,
        "effective_at": iso(row.effective_at),
        "expires_at": iso(row.expires_at) if row.expires_at else None,
        "awaiting_payment": row.awaiting_payment,
    }
