"""`/v1/organizations/…/purchases`: buying credits, and what runs on by the month.

The purchase is committed before its provider is asked, so that a repeat goes on with whatever a
crash left; which rules hold is in `api.rules.purchases`, who is asked in `api.payments`.
"""

import asyncio
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api import reading
from api.errors import Refused
from api.payments.providers import RETURN_PATH, already_begun, returns_to
from api.reading import billing
from api.rules import purchases as purchase_rules
from api.rules.change import Change
from api.storage.purchases import Purchase
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import Api, ApiPart, Caller, OrganizationId, path_id
from api.web.idempotency import Once, OncePart, begin_once
from api.web.pages import Paging, newest_page
from api.web.pools import Editor, Pool, Reader, pool_route, require_own
from api.web.shapes import billing as shapes
from api.web.shown_billing import shown_purchase, shown_subscription

log = structlog.get_logger()
router = APIRouter(
    prefix="/v1/organizations/{organization_id}", tags=["Billing"], route_class=KeyedRoute
)
PurchaseId = Annotated[str, path_id(shapes.PURCHASE, "The purchase.")]
SubscriptionId = Annotated[str, path_id(shapes.PURCHASE, "The subscription: its purchase's id.")]
LOOK_S: Final = 5.0
"""How long an answer about a purchase waits for what the provider says of it."""


@pool_route(
    router,
    "GET",
    "/purchases",
    response_model=shapes.Purchases,
    responses=responses(Error, 404, 409),
    summary="Every purchase for a {pool}, newest first",
)
def list_purchases(
    api: ApiPart, caller: Reader, organization_id: OrganizationId, pool: Pool, paging: Paging
) -> Response:
    with api.store.read() as session:
        reading.organization(session, organization_id)
        require_own(session, caller, organization_id, pool, to_change=False)
        query = billing.purchases_of(organization_id, pool.kind, pool.id)
        return Json(
            newest_page(session, paging, query, Purchase.created_at, Purchase.id, shown_purchase)
        )


@pool_route(
    router,
    "GET",
    "/purchases/{purchase_id}",
    response_model=shapes.Purchase,
    responses=responses(Error, 404, 409),
    summary="One purchase of a {pool}; asks the provider while it is not paid",
)
async def get_purchase(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    pool: Pool,
    purchase_id: PurchaseId,
) -> Response:
    """For whoever comes back from the checkout: a webhook that is lost keeps nobody waiting."""

    def read() -> Purchase:
        with api.store.read() as session:
            require_own(session, caller, organization_id, pool, to_change=False)
            whose = (organization_id, pool.kind, pool.id)
            return billing.purchase_of(session, *whose, purchase_id)

    row = await run_in_threadpool(read)
    if row.state in billing.UNFINISHED and await _looked(api, row):
        row = await run_in_threadpool(read)
    return Json(shown_purchase(row))


async def _looked(api: Api, purchase: Purchase) -> bool:
    """Whether the provider was asked. Where it cannot be, what is known is the answer."""
    try:
        api.limits.take("looks", purchase.id)
        till = api.payments.of(purchase.provider)
        async with asyncio.timeout(LOOK_S):
            await till.look(purchase.organization_id, purchase.id)
    except Exception as error:  # noqa: BLE001 - the inbox looks again, and says what is wrong
        why = str(error) if isinstance(error, Refused) else type(error).__name__
        log.info("purchase_not_looked_at", purchase_id=purchase.id, why=why)
        return False
    return True


@pool_route(
    router,
    "POST",
    "/purchases",
    status_code=201,
    response_model=shapes.Bought,
    responses=responses(Error, 402, 404, 409, 422, 502),
    summary="Buy one to fifty packages for a {pool}, once or every month",
)
async def post_purchase(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    pool: Pool,
    body: shapes.NewPurchase,
) -> Response:
    """With an Idempotency-Key a repeat is the same purchase with the same `checkout_url`, also
    where the first try was cut off before its answer."""
    order = purchase_rules.Order(body.package_id, body.kind, body.quantity)

    def create(change: Change) -> str:
        require_own(change.session, caller, organization_id, pool, to_change=True)
        row = purchase_rules.create_purchase(change, pool.kind, pool.id, order)
        api.payments.of(row.provider)
        return row.id

    def read() -> Purchase:
        with api.store.read() as session:
            whose = (organization_id, pool.kind, pool.id)
            return billing.purchase_of(session, *whose, purchase_id)

    purchase_id = await run_in_threadpool(begin_once, api, caller, once, organization_id, create)
    begun = already_begun(await run_in_threadpool(read))
    if begun is None:
        page = api.options.base_url + (body.return_path or RETURN_PATH)
        returns = returns_to(page, purchase_id)
        row = await run_in_threadpool(read)
        begun = await api.payments.of(row.provider).begin(organization_id, purchase_id, returns)
    return Json(
        {
            "status": begun.status,
            "checkout_url": begun.checkout_url,
            "purchase": shown_purchase(await run_in_threadpool(read)),
        },
        201,
    )


@pool_route(
    router,
    "POST",
    "/subscriptions/{subscription_id}/cancel",
    response_model=shapes.Subscription,
    responses=responses(Error, 404, 409, 422, 502),
    summary="End a subscription of a {pool} with its period; its credits last until then",
)
async def post_cancel(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    pool: Pool,
    subscription_id: SubscriptionId,
) -> Response:
    whose = (organization_id, pool)
    return await _steer(api, caller, once, whose, subscription_id, is_to_end=True)


@pool_route(
    router,
    "POST",
    "/subscriptions/{subscription_id}/resume",
    response_model=shapes.Subscription,
    responses=responses(Error, 404, 409, 422, 502),
    summary="Let a subscription of a {pool} go on that was to end with its period",
)
async def post_resume(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    pool: Pool,
    subscription_id: SubscriptionId,
) -> Response:
    whose = (organization_id, pool)
    return await _steer(api, caller, once, whose, subscription_id, is_to_end=False)


async def _steer(
    api: Api,
    caller: Caller,
    once: Once,
    whose: tuple[str, Pool],
    subscription_id: str,
    *,
    is_to_end: bool,
) -> Response:
    """Asks the provider unless the subscription is so already; a repeat goes on with what the first
    try left undone."""
    organization_id, pool = whose

    def note(change: Change) -> str:
        require_own(change.session, caller, organization_id, pool, to_change=True)
        row, _ = purchase_rules.subscription_to_change(
            change, pool.kind, pool.id, subscription_id, is_to_end=is_to_end
        )
        return row.provider

    def read() -> tuple[bool, dict[str, Any]]:
        with api.store.read() as session:
            purchase, row = billing.subscription_of(session, organization_id, subscription_id)
            is_so = row.ended_at is not None or row.cancel_at_period_end == is_to_end
            return is_so, shown_subscription(purchase, row)

    provider = await run_in_threadpool(begin_once, api, caller, once, organization_id, note)
    is_so, shown = await run_in_threadpool(read)
    if not is_so:
        till = api.payments.of(provider)
        ask = till.cancel if is_to_end else till.resume
        await ask(organization_id, subscription_id)
        _, shown = await run_in_threadpool(read)
    return Json(shown)


@pool_route(
    router,
    "POST",
    "/portal",
    status_code=201,
    response_model=shapes.Portal,
    responses=responses(Error, 404, 409, 422, 502),
    summary="A short-lived address where what a {pool} pays is managed",
)
async def post_portal(
    api: ApiPart,
    caller: Editor,
    once: OncePart,
    organization_id: OrganizationId,
    pool: Pool,
    body: shapes.NewPortal,
) -> Response:
    def note(change: Change) -> str:
        require_own(change.session, caller, organization_id, pool, to_change=True)
        profile = purchase_rules.profile_to_pay(change, pool.kind, pool.id)
        api.payments.of(profile.provider)
        change.audit("billing.portal", (pool.kind, pool.id), None, {"profile_id": profile.id})
        return profile.id

    def read() -> str:
        with api.store.read() as session:
            return billing.profile_of(session, organization_id, profile_id).provider

    profile_id = await run_in_threadpool(begin_once, api, caller, once, organization_id, note)
    provider = await run_in_threadpool(read)
    return_url = api.options.base_url + (body.return_path or RETURN_PATH)
    url = await api.payments.of(provider).portal(organization_id, profile_id, return_url)
    return Json({"url": url}, 201)
