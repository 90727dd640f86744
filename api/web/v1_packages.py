"""`/v1/packages`: what the operator sells; and what of it an organization can buy."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from sqlalchemy import select
from starlette.responses import Response

from api import reading
from api.errors import invalid
from api.rules import packages as package_rules
from api.rules.change import Transaction
from api.rules.currencies import money_text
from api.storage.purchases import PACKAGES_A_PURCHASE_MAX, Package
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import OPERATORS, READERS, Allow, ApiPart, Caller, OrganizationId, path_id
from api.web.idempotency import Answer, OncePart, transact_once
from api.web.pages import Paging, page
from api.web.shapes import billing as shapes
from api.web.shapes.common import iso

router = APIRouter(prefix="/v1", tags=["Billing"], route_class=KeyedRoute)

Operator = Annotated[Caller, Depends(Allow(OPERATORS, "api"))]
Reader = Annotated[Caller, Depends(Allow(READERS, "api", every_group=True))]
PackageId = Annotated[str, path_id(shapes.PACKAGE, "The package.")]
NULLABLE = frozenset({"stripe_one_time_price_id", "stripe_monthly_price_id"})


@router.post(
    "/packages",
    status_code=201,
    response_model=shapes.Package,
    responses=responses(Error, 409, 422),
    summary="Sell a package of credits",
)
def post_package(
    api: ApiPart, caller: Operator, once: OncePart, body: shapes.NewPackage
) -> Response:
    fields = body.model_dump(exclude={"id"})

    def create(transaction: Transaction) -> Answer:
        terms = package_rules.PackageTerms(**fields)
        row = package_rules.create_package(transaction, terms, body.id)
        return Answer(201, shown_package(row))

    return transact_once(api, caller, once, None, create)


@router.get(
    "/packages",
    response_model=shapes.Packages,
    responses=responses(Error),
    summary="Every package, retired ones too",
)
def list_packages(api: ApiPart, caller: Operator, paging: Paging) -> Response:
    with api.store.read() as session:
        return Json(page(session, paging, select(Package), Package.id, shown_package))


@router.patch(
    "/packages/{package_id}",
    response_model=shapes.Package,
    responses=responses(Error, 404, 409),
    summary="Change what is sold from now on, or retire it; what was sold stays as it was sold",
)
def patch_package(
    api: ApiPart, caller: Operator, package_id: PackageId, body: shapes.PackageChange
) -> Response:
    changes = body.model_dump(exclude_unset=True)
    is_retired = changes.pop("retired", None)
    for name, value in changes.items():
        if value is None and name not in NULLABLE:
            raise invalid(f"{name} cannot be null.", f"body.{name}")
    if not changes and is_retired is None:
        raise invalid("Nothing to change is given.", "body")
    with api.control.transaction(caller.actor()) as transaction:
        row = package_rules.change_package(transaction, package_id, changes)
        if is_retired is not None:
            decide = package_rules.retire_package if is_retired else package_rules.restore_package
            row = decide(transaction, package_id)
        return Json(shown_package(row))


@router.get(
    "/organizations/{organization_id}/packages",
    response_model=shapes.OfferedPackages,
    responses=responses(Error, 404),
    summary="What the organization can buy, in its currency",
)
def list_offered(api: ApiPart, caller: Reader, organization_id: OrganizationId) -> Response:
    with api.store.read() as session:
        currency = reading.organization(session, organization_id).currency
        rows = package_rules.sold_packages(session, currency)
    items = [_terms(row) for row in rows]
    return Json({"items": items, "quantity_max": PACKAGES_A_PURCHASE_MAX})


def _terms(row: Package) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "credits_micro": row.credits_micro,
        "price_minor": row.price_minor,
        "currency": row.currency,
        "price_text": money_text(row.price_minor, row.currency),
        "sold_one_time": row.sold_one_time,
        "sold_monthly": row.sold_monthly,
    }


def shown_package(row: Package) -> dict[str, Any]:
    return _terms(row) | {
        "stripe_one_time_price_id": row.stripe_one_time_price_id,
        "stripe_monthly_price_id": row.stripe_monthly_price_id,
        "retired": row.retired_at is not None,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }
