"""`/v1/organizations/…/billing`: who pays for a group or website, what it has, and its invoices."""

from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import reading
from api.payments.providers import provider_for
from api.reading import billing
from api.rules.billing_profiles import enable_billing
from api.rules.change import Change
from api.storage.purchases import Invoice
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import ApiPart, OrganizationId
from api.web.idempotency import Answer, OncePart, change_once
from api.web.pages import Paging, newest_page
from api.web.pools import Editor, Pool, Reader, pool_route, require_own
from api.web.shapes import billing as shapes
from api.web.shown_billing import shown_billing, shown_invoice, shown_profile, with_figures

router = APIRouter(
    prefix="/v1/organizations/{organization_id}", tags=["Billing"], route_class=KeyedRoute
)


@pool_route(
    router,
    "GET",
    "/billing",
    response_model=shapes.Billing,
    responses=responses(Error, 404, 409),
    summary="What the billing page of a {pool} shows",
)
def get_billing(
    api: ApiPart, caller: Reader, organization_id: OrganizationId, pool: Pool
) -> Response:
    """The figures are null, with the reason in `figures_missing`, while ClickHouse is away; all
    else is there. Credits that were granted are shown whether billing is enabled or not."""
    with api.store.read() as session:
        organization = reading.organization(session, organization_id)
        name = require_own(session, caller, organization_id, pool, to_change=False)
        bought = {
            "pool": {"kind": pool.kind, "id": pool.id, "name": name},
            "currency": organization.currency,
        } | shown_billing(session, organization_id, pool.kind, pool.id)
    whose = (organization_id, pool.kind, pool.id)
    return Json(with_figures(bought, api.spend, whose, api.control.clock()))


@pool_route(
    router,
    "POST",
    "/billing",
    status_code=201,
    response_model=shapes.Profile,
    responses=responses(Error, 404, 409, 422)
    | {200: {"model": shapes.Profile, "description": "It was enabled already."}},
    summary="Enable billing for a {pool}, so that credits can be bought for it",
)
def post_billing(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    pool: Pool,
    body: shapes.Enable,
) -> Response:
    def enable(change: Change) -> Answer:
        require_own(change.session, caller, organization_id, pool, to_change=True)
        provider = provider_for(api.payments, change, (pool.kind, pool.id), body.kind)
        row, is_new = enable_billing(change, pool.kind, pool.id, provider)
        return Answer(201 if is_new else 200, shown_profile(row))

    return change_once(api, caller, once, organization_id, enable)


@pool_route(
    router,
    "GET",
    "/invoices",
    response_model=shapes.Invoices,
    responses=responses(Error, 404, 409),
    summary="Paid invoices of a {pool}, newest first",
)
def list_invoices(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    pool: Pool,
    paging: Paging,
    month: Annotated[
        str | None,
        Query(
            pattern=billing.MONTH,
            description="Of the organization's calendar.",
            examples=["2026-11"],
        ),
    ] = None,
) -> Response:
    """By when they were paid. Months are those of the calendar, not billing cycles: subscriptions
    begin on any day."""
    with api.store.read() as session:
        organization = reading.organization(session, organization_id)
        require_own(session, caller, organization_id, pool, to_change=False)
        zone = ZoneInfo(organization.time_zone)
        whose = (organization_id, pool.kind, pool.id)
        query = billing.paid_invoices(*whose, billing.month_span(month, zone) if month else None)
        answer = newest_page(
            session, paging, query, Invoice.paid_at, Invoice.provider_id, shown_invoice
        )
        times = billing.paid_times(session, *whose)
    months = dict.fromkeys(f"{moment.astimezone(zone):%Y-%m}" for moment in times)
    return Json(answer | {"months": list(months), "time_zone": organization.time_zone})
