"""Routes that are the same for groups and websites: one handler, two paths, a pool as parameter."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from sqlalchemy.orm import Session

from api import reading
from api.errors import forbidden, not_found
from api.reading.billing import pool_name
from api.rules.keys import Scope
from api.web.context import GROUP_EDITORS, READERS, Allow, Caller, path_id
from schemas.records import PoolKind

Handler = Callable[..., Any]
Reader = Annotated[Caller, Depends(Allow(READERS, "api", every_group=True))]
Editor = Annotated[Caller, Depends(Allow(GROUP_EDITORS, "api", every_group=True))]
"""Admins of the organization, and of the pool's group: `require_own` asks whose a website is."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The group or website that a path names."""

    kind: PoolKind
    id: str


async def _of_group(
    group_id: Annotated[str, path_id("group_01ARZ3NDEKTSV4RRFFQ69G5FAV", "The group.")],
) -> Pool:
    return Pool("group", group_id)


async def _of_website(website_id: Annotated[str, path_id("web_3", "The website.")]) -> Pool:
    return Pool("website", website_id)


PATHS: Final = (
    ("group", "/groups/{group_id}", Annotated[Pool, Depends(_of_group)]),
    ("website", "/websites/{website_id}", Annotated[Pool, Depends(_of_website)]),
)


def pool_route(
    router: APIRouter, method: str, path: str, *, summary: str, **options: Any
) -> Callable[[Handler], Handler]:
    """Adds a handler for a group and for a website; it takes the one that is meant as `pool`."""

    def add(handler: Handler) -> Handler:
        for kind, prefix, part in PATHS:
            router.add_api_route(
                prefix + path,
                _with_pool(handler, part),
                methods=[method],
                name=f"{handler.__name__}_of_{kind}",
                summary=summary.format(pool=kind),
                **options,
            )
        return handler

    return add


def _with_pool(handler: Handler, part: Any) -> Handler:
    assert isinstance(handler, FunctionType)
    copy = FunctionType(handler.__code__, handler.__globals__, handler.__name__)
    copy.__kwdefaults__ = handler.__kwdefaults__
    copy.__defaults__ = handler.__defaults__
    copy.__doc__ = handler.__doc__
    signature = inspect.signature(handler)
    parameters = [
        one.replace(annotation=part) if one.name == "pool" else one
        for one in signature.parameters.values()
    ]
    copy.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return copy


def require_own(
    session: Session, caller: Caller, organization_id: str, pool: Pool, *, to_change: bool
) -> str:
    """The pool's name. Raises Refused: 404 where there is none, it is deleted or of a group that
    the key is not of; 409 for Unassigned; 403 where an admin of groups would change a website that
    is in none."""
    name = pool_name(session, organization_id, pool.kind, pool.id)
    if pool.kind == "group":
        return name
    row = reading.website(session, organization_id, pool.id)
    if caller.group_id is not None and row.group_id != caller.group_id:
        raise not_found("website", pool.id, "website_id")
    if to_change and caller.scope is Scope.GROUP_ADMIN and row.group_id is None:
        raise forbidden(
            "This website is in no group, so only admins of the organization may do this.",
            "Use a key of scope admin, or put the website into a group.",
        )
    return name
