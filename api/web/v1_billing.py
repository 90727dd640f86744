"""`/v1/organizations/…/billing`: who pays for a group or website, what it has, and its invoices."""

import re
from datetime import datetime
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session
from starlette.responses import Response

from api import reading
from api.errors import Refused, conflict, invalid
from api.reading import billing
from api.reading.balances import pool_figures
from api.rules.billing_profiles import enable_billing
from api.rules.change import Change
from api.storage.models import Website
from api.storage.purchases import STRIPE, Invoice
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import Api, ApiPart, OrganizationId
from api.web.idempotency import Answer, OncePart, change_once
from api.web.pages import Paging, newest_page
from api.web.pools import Editor, Pool, Reader, pool_route, require_own
from api.web.shapes import billing as shapes
from api.web.shapes.balances import shown_figures
from api.web.shown_billing import (
    shown_invoice,
    shown_profile,
    shown_purchase,
    shown_subscription,
)

router = APIRouter(
    prefix="/v1/organizations/{organization_id}", tags=["Billing"], route_class=KeyedRoute
)
HOST_NAME: Final = re.compile(r"(?:https?://)?((?:[a-z0-9-]{1,63}\.)+[a-z]{2,63})(?:/.*)?", re.I)
NO_FIGURES: Final = dict.fromkeys(
    ("total_micro", "used_micro", "remaining_micro", "next_reset_at"), None
)
MONTH: Final = r"^(20\d{2}|21\d{2})-(0[1-9]|1[0-2])$"


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
        answer = _bought(session, organization_id, pool) | {
            "pool": {"kind": pool.kind, "id": pool.id, "name": name},
            "currency": organization.currency,
        }
    figures, answer["figures_missing"] = _figures(api, organization_id, pool)
    for kind in ("monthly", "one_time"):
        answer[kind] = NO_FIGURES | figures.get(kind, {}) | {"packages": answer[kind]}
    answer["debt_micro"] = figures.get("debt_micro")
    return Json(answer)


def _bought(session: Session, organization_id: str, pool: Pool) -> dict[str, Any]:
    whose = (organization_id, pool.kind, pool.id)
    profile = billing.open_profile(session, *whose)
    subscriptions = billing.live_subscriptions(session, *whose)
    if pool.kind == "group":
        sites = billing.websites_of(session, organization_id, pool.id)
    else:
        sites = [reading.website(session, organization_id, pool.id)]
    return {
        "profile": shown_profile(profile) if profile else None,
        "partner_managed": profile is not None and profile.provider != STRIPE,
        "websites": [_shown_site(site) for site in sites],
        "monthly": sum(purchase.quantity for purchase, _ in subscriptions),
        "one_time": billing.one_time_packages(session, *whose),
        "subscriptions": [shown_subscription(*row) for row in subscriptions],
        "waiting": [shown_purchase(row) for row in billing.waiting_purchases(session, *whose)],
    }


def _figures(api: Api, organization_id: str, pool: Pool) -> tuple[dict[str, Any], str | None]:
    """What is left; or why nobody can tell, since what was bought is shown all the same."""
    try:
        now = api.control.clock()
        figures = pool_figures(api.spend, organization_id, pool.kind, pool.id, now)
    except Refused as refused:
        return {}, refused.message
    return shown_figures(figures), None


def _shown_site(row: Website) -> dict[str, Any]:
    host = HOST_NAME.fullmatch(row.name.strip())
    address = f"https://{host[1].lower()}" if host else None
    return {
        "id": row.id,
        "name": row.name,
        "address": address,
        "icon_url": f"{address}/favicon.ico" if address else None,
    }


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
        provider = _provider(api, change, pool, body.kind)
        row, is_new = enable_billing(change, pool.kind, pool.id, provider)
        return Answer(201 if is_new else 200, shown_profile(row))

    return change_once(api, caller, once, organization_id, enable)


def _provider(api: Api, change: Change, pool: Pool, kind: str | None) -> str:
    organization_id = change.organization_id
    former = billing.open_profile(change.session, organization_id, pool.kind, pool.id)
    partner = api.payments.partner_of(organization_id)
    if kind is None and former is not None:
        return former.provider
    if kind == "standard" or (kind is None and partner is None):
        return api.payments.standard()
    if partner is None:
        raise conflict(
            "no_partner",
            "No partner manages the billing of this organization.",
            "body.kind",
            "Enable standard billing.",
        )
    api.payments.of(partner)
    return partner


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
        Query(pattern=MONTH, description="Of the organization's calendar.", examples=["2026-11"]),
    ] = None,
) -> Response:
    """By when they were paid. Months are those of the calendar, not billing cycles: subscriptions
    begin on any day."""
    with api.store.read() as session:
        organization = reading.organization(session, organization_id)
        require_own(session, caller, organization_id, pool, to_change=False)
        zone = ZoneInfo(organization.time_zone)
        whose = (organization_id, pool.kind, pool.id)
        query = billing.paid_invoices(*whose, _span(month, zone) if month else None)
        answer = newest_page(
            session, paging, query, Invoice.paid_at, Invoice.provider_id, shown_invoice
        )
        times = billing.paid_times(session, *whose)
    months = dict.fromkeys(f"{moment.astimezone(zone):%Y-%m}" for moment in times)
    return Json(answer | {"months": list(months), "time_zone": organization.time_zone})


def _span(month: str, zone: ZoneInfo) -> billing.Span:
    try:
        start = datetime(int(month[:4]), int(month[5:]), 1, tzinfo=zone)
    except ValueError as error:
        raise invalid(f"{month!r} is no month.", "query.month") from error
    year, following = divmod(start.month, 12)
    return billing.Span(start, start.replace(year=start.year + year, month=following + 1))
