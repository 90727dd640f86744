"""`/v1/organizations/…/balances`: what is left of credits, by pool and by grant."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from api import reading
from api.reading.balances import PoolFigures, PoolId, grants_page, pool_figures, pools_page
from api.storage.models import BillingGroup, Website
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import ApiPart, OrganizationId
from api.web.pages import Paging, after, bad_cursor, cursor_of
from api.web.pools import Pool, Reader, pool_route, require_own
from api.web.shapes import balances as shapes
from api.web.shapes.v1 import PoolKind
from schemas.records import ID_LIMIT_CHARACTERS, INT64_MAX

router = APIRouter(
    prefix="/v1/organizations/{organization_id}",
    tags=["Organizations, prices and credits"],
    route_class=KeyedRoute,
)

Name = tuple[str, bool]
"""A pool's name, and whether its group was deleted."""


@router.get(
    "/balances",
    response_model=shapes.PoolBalances,
    responses=responses(Error, 404),
    summary="What is left of the credits of every pool",
)
def list_balances(
    api: ApiPart,
    caller: Reader,
    organization_id: OrganizationId,
    paging: Paging,
    pool_kind: Annotated[PoolKind | None, Query(description="Only websites, or groups.")] = None,
    pool_id: Annotated[
        str | None, Query(max_length=ID_LIMIT_CHARACTERS, description="Only this one.")
    ] = None,
) -> Response:
    """In the order of kind and id; a second or so after usage was rated."""
    behind = _pool_of(paging.cursor)
    with api.store.read() as session:
        reading.organization(session, organization_id)
    pools = pools_page(
        api.spend,
        organization_id,
        api.control.clock(),
        limit=paging.limit + 1,
        after=behind,
        pool_kind=pool_kind,
        pool_id=pool_id,
    )
    shown = pools[: paging.limit]
    with api.store.read() as session:
        names = _names(session, organization_id, shown)
    last = shown[-1] if len(pools) > paging.limit else None
    return Json(
        {
            "items": [
                shapes.shown_pool(pool, *names.get((pool.pool_kind, pool.pool_id), ("", False)))
                for pool in shown
            ],
            "next_cursor": cursor_of([last.pool_kind, last.pool_id]) if last else None,
        }
    )


@pool_route(
    router,
    "GET",
    "/balance",
    response_model=shapes.PoolByGrant,
    responses=responses(Error, 404, 409),
    summary="What is left of the credits of a {pool}, by grant",
)
def get_balance(
    api: ApiPart, caller: Reader, organization_id: OrganizationId, pool: Pool, paging: Paging
) -> Response:
    before, now = _grant_of(paging.cursor), api.control.clock()
    with api.store.read() as session:
        reading.organization(session, organization_id)
        name = require_own(session, caller, organization_id, pool, to_change=False)
    whose: PoolId = (pool.kind, pool.id)
    page = api.spend.soon(
        grants_page, api.spend, organization_id, whose, limit=paging.limit + 1, before=before
    )
    figures = pool_figures(api.spend, organization_id, *whose, now)
    grants = page.result()
    shown = grants[: paging.limit]
    last = shown[-1] if len(grants) > paging.limit else None
    return Json(
        {
            **shapes.shown_pool(figures, name, False),
            "grants": [shapes.shown_grant(grant, now) for grant in shown],
            "next_cursor": cursor_of([last.effective_us, last.grant_id]) if last else None,
        }
    )


def _names(
    session: Session, organization_id: str, pools: Iterable[PoolFigures]
) -> dict[tuple[str, str], Name]:
    ids = [(pool.pool_kind, pool.pool_id) for pool in pools]
    names: dict[tuple[str, str], Name] = {}
    groups = select(BillingGroup.id, BillingGroup.name, BillingGroup.deleted_at).where(
        BillingGroup.organization_id == organization_id,
        BillingGroup.id.in_([pool_id for kind, pool_id in ids if kind == "group"]),
    )
    for group_id, name, deleted_at in session.execute(groups):
        names["group", group_id] = (name, deleted_at is not None)
    websites = select(Website.id, Website.name).where(
        Website.organization_id == organization_id,
        Website.id.in_([pool_id for kind, pool_id in ids if kind == "website"]),
    )
    for website_id, name in session.execute(websites):
        names["website", website_id] = (name, False)
    return names


def _pool_of(cursor: str) -> PoolId | None:
    match after(cursor):
        case None:
            return None
        case ["group" | "website" as kind, str(pool_id)] if _is_text(pool_id):
            return kind, pool_id
        case _:
            raise bad_cursor()


def _grant_of(cursor: str) -> tuple[int, str] | None:
    match after(cursor):
        case None:
            return None
        case [int(at_us), str(grant_id)] if 0 <= at_us <= INT64_MAX and _is_text(grant_id):
            return at_us, grant_id
        case _:
            raise bad_cursor()


def _is_text(value: Any) -> bool:
    """Whether UTF-8 can say it; JSON can say half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
