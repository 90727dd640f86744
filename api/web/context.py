"""What every handler is given, and who is asking."""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Path, Request
from fastapi.security.utils import get_authorization_scheme_param

from api.errors import Refused, forbidden, not_found
from api.ingest import Ingest
from api.options import ApiOptions
from api.rules.change import Actor, Control
from api.rules.keys import Scope, authenticate, unauthorized
from api.spend import Spend
from api.storage.store import Store
from api.web.limits import RateLimits
from schemas.records import ID_LIMIT_CHARACTERS, AssignedBy
from schemas.settings import Settings


@dataclass
class Api:
    """One process's parts, made once in `api.app`."""

    settings: Settings
    options: ApiOptions
    store: Store
    control: Control
    spend: Spend
    limits: RateLimits
    ingest: Ingest


@dataclass(frozen=True, slots=True)
class Caller:
    """A key that was accepted. `organization_id` is None for keys that are bound to nobody."""

    key_id: str
    scope: Scope
    organization_id: str | None

    def actor(self, how: AssignedBy = "api") -> Actor:
        return Actor(f"key:{self.key_id}", how)


READERS: Final = frozenset({Scope.ADMIN, Scope.GROUP_ADMIN, Scope.FINANCE, Scope.OPERATOR})
GROUP_EDITORS: Final = frozenset({Scope.ADMIN, Scope.GROUP_ADMIN, Scope.OPERATOR})
ADMINS: Final = frozenset({Scope.ADMIN, Scope.OPERATOR})
OPERATORS: Final = frozenset({Scope.OPERATOR})
INGESTERS: Final = frozenset({Scope.INGEST})
PROVISIONERS: Final = frozenset({Scope.SCIM})


def get_api(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


ApiPart = Annotated[Api, Depends(get_api)]


class Allow:
    """A dependency: the caller, if its key has one of these scopes and is not too fast.

    Where the path names an organization it must be the key's own: any other is not found, as if
    it did not exist. `tenant` demands a key that is bound to an organization.
    """

    def __init__(self, scopes: frozenset[Scope], limit: str, *, tenant: bool = False) -> None:
        self.scopes = scopes
        self.limit = limit
        self.tenant = tenant

    def __call__(self, request: Request, api: ApiPart) -> Caller:
        caller = identify(request, api)
        named = request.path_params.get("organization_id")
        is_foreign = named is not None and named != caller.organization_id
        if is_foreign and caller.scope is not Scope.OPERATOR:
            raise not_found("organization", str(named), "organization_id")
        if caller.scope not in self.scopes:
            raise forbidden(
                f"A key of scope {caller.scope} may not do this.",
                f"Use a key of scope {' or '.join(sorted(self.scopes))}.",
            )
        if self.tenant and caller.organization_id is None:
            raise forbidden("This key belongs to no organization.")
        api.limits.take(self.limit, caller.organization_id or caller.key_id)
        return caller


def identify(request: Request, api: Api) -> Caller:
    """Whose key this is. Raises Refused (401), or 429 after too many wrong keys of an address;
    a right key is accepted even then, since others may share the address."""
    try:
        secret = _secret(request)
        with api.store.read() as session:
            key = authenticate(session, secret, api.control.clock())
    except Refused as refused:
        if refused.status == 401:
            address = request.client.host if request.client else "unknown"
            api.limits.take("failed_logins", address)
        raise
    return Caller(key.id, Scope(key.scope), key.organization_id)


def _secret(request: Request) -> str:
    scheme, value = get_authorization_scheme_param(request.headers.get("authorization"))
    if scheme.lower() == "bearer" and value:
        return value
    if scheme.lower() == "basic" and value:
        return _basic_user(value)
    raise unauthorized()


def _basic_user(value: str) -> str:
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise unauthorized() from error
    return text.partition(":")[0]


OrganizationId = Annotated[
    str,
    Path(
        max_length=ID_LIMIT_CHARACTERS,
        description="The organization; keys bound to one can name only their own.",
        examples=["org_demo"],
    ),
]


def path_id(example: str, description: str) -> object:
    """The declaration of an id in a path."""
    return Path(max_length=ID_LIMIT_CHARACTERS, description=description, examples=[example])
