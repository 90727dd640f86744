"""`/api/v1/credits`: what can be spent, in the shapes of AthenaHQ's credits API.

Its scripts send the key in the header `x-api-key`, which the gate takes on these paths and on no
other. An organization has no credits of its own here: its figures are the sums over all its pools.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from api import reading
from api.reading.balances import organization_figures, pool_figures
from api.rules.keys import Scope
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import Allow, ApiPart, Caller
from api.web.gate import API_KEY_PATHS
from api.web.shapes import balances as shapes
from schemas.records import ID_LIMIT_CHARACTERS

ORGANIZATION, WEBSITE, GROUP = API_KEY_PATHS

router = APIRouter(tags=["Credits (AthenaHQ's shapes)"], route_class=KeyedRoute)

Reader = Annotated[
    Caller, Depends(Allow(frozenset({Scope.ADMIN, Scope.FINANCE}), "api", tenant=True))
]


@router.get(
    ORGANIZATION,
    response_model=shapes.AthenaAnswer,
    responses=responses(Error),
    summary="What all pools of the key's organization can spend",
)
def get_organization_credits(api: ApiPart, caller: Reader) -> Response:
    now = api.control.clock()
    return Json(shapes.shown_as_athena(organization_figures(api.spend, _organization(caller), now)))


@router.get(
    WEBSITE,
    response_model=shapes.AthenaAnswer,
    responses=responses(Error, 404),
    summary="What a website can spend of its own",
)
def get_website_credits(
    api: ApiPart,
    caller: Reader,
    website_id: Annotated[
        str, Query(max_length=ID_LIMIT_CHARACTERS, description="The website.", examples=["web_3"])
    ],
) -> Response:
    organization_id, now = _organization(caller), api.control.clock()
    with api.store.read() as session:
        reading.website(session, organization_id, website_id)
    figures = pool_figures(api.spend, organization_id, "website", website_id, now)
    return Json(shapes.shown_as_athena(figures))


@router.get(
    GROUP,
    response_model=shapes.AthenaAnswer,
    responses=responses(Error, 404),
    summary="What a group can spend",
)
def get_group_credits(
    api: ApiPart,
    caller: Reader,
    group_id: Annotated[
        str,
        Query(max_length=ID_LIMIT_CHARACTERS, description="The group.", examples=["group_x"]),
    ],
) -> Response:
    organization_id, now = _organization(caller), api.control.clock()
    with api.store.read() as session:
        reading.group(session, organization_id, group_id)
    figures = pool_figures(api.spend, organization_id, "group", group_id, now)
    return Json(shapes.shown_as_athena(figures))


def _organization(caller: Caller) -> str:
    assert caller.organization_id is not None, "the route is a tenant's"
    return caller.organization_id
