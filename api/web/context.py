"""What every handler is given, and who is asking."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Request

from api.errors import forbidden, not_found
from api.ingest import Ingest
from api.options import ApiOptions
from api.payments.desk import Desk
from api.payments.providers import Payments
from api.reading.spend import Spend
from api.rules.change import Actor, Control
from api.rules.keys import Scope
from api.storage.store import Store
from api.web.limits import RateLimits
from api.web.readers import NewestReaders
from schemas.records import ID_LIMIT_CHARACTERS, AssignedBy
from schemas.settings import Settings

WEBHOOKS_READ_AT_ONCE: Final = 256
"""Of at most 256 KiB each."""


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
    desk: Desk
    webhook_readers: NewestReaders = field(
        default_factory=lambda: NewestReaders(WEBHOOKS_READ_AT_ONCE)
    )

    @property
    def payments(self) -> Payments:
        """Who can be paid by."""
        return self.desk.payments


@dataclass(frozen=True, slots=True)
class Caller:
    """A key that was accepted. `organization_id` is None for keys that are bound to nobody."""

    key_id: str
    scope: Scope
    organization_id: str | None
    group_id: str | None = None
    """The one group that the key is an admin of; None: no such bound."""

    @property
    def counted_as(self) -> str:
        """Who counts for the limits of rate."""
        return self.organization_id or self.key_id

    def actor(self, how: AssignedBy = "api") -> Actor:
        """`how` is said by the route, never by the caller."""
        return Actor(f"key:{self.key_id}", how)


READERS: Final = frozenset({Scope.ADMIN, Scope.GROUP_ADMIN, Scope.FINANCE, Scope.OPERATOR})
GROUP_EDITORS: Final = frozenset({Scope.ADMIN, Scope.GROUP_ADMIN, Scope.OPERATOR})
ADMINS: Final = frozenset({Scope.ADMIN, Scope.OPERATOR})
OPERATORS: Final = frozenset({Scope.OPERATOR})
INGESTERS: Final = frozenset({Scope.INGEST})
PROVISIONERS: Final = frozenset({Scope.SCIM})


async def get_api(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


ApiPart = Annotated[Api, Depends(get_api)]


class Allow:
    """A dependency: the caller, if its key has one of these scopes and is not too fast.

    Where the path names an organization it must be the key's own: any other is not found, as if
    it did not exist. `tenant` demands a key that is bound to an organization, `large_body` lets
    files in, `every_group` lets keys of one group in where the path names no
    group: what is everybody's, or whose it is the handler asks.
    `api.web.admission` asks `admit` before it reads anything of the body.
    """

    def __init__(
        self,
        scopes: frozenset[Scope],
        limit: str,
        *,
        tenant: bool = False,
        large_body: bool = False,
        every_group: bool = False,
    ) -> None:
        self.scopes = scopes
        self.limit = limit
        self.tenant = tenant
        self.large_body = large_body
        self.every_group = every_group

    async def __call__(self, request: Request) -> Caller:
        # A route that was made without `KeyedRoute` fails here, instead of letting everybody in.
        if getattr(request.state, "admitted_by", None) is not self:
            raise RuntimeError(f"{request.url.path} was not admitted")
        caller: Caller = request.state.caller
        return caller

    def admit(self, api: "Api", caller: Caller, path_parameters: Mapping[str, Any]) -> None:
        """Raises Refused (403, 404, 429) where this key may not come in here; that counts too."""
        api.limits.take(self.limit, caller.counted_as)
        organization_id = path_parameters.get("organization_id")
        is_foreign = organization_id is not None and organization_id != caller.organization_id
        if is_foreign and caller.scope is not Scope.OPERATOR:
            raise not_found("organization", str(organization_id), "organization_id")
        if caller.scope not in self.scopes:
            raise forbidden(
                f"A key of scope {caller.scope} may not do this.",
                f"Use a key of scope {' or '.join(sorted(self.scopes))}.",
            )
        if caller.group_id is not None:
            self._keep_to_group(caller.group_id, path_parameters)
        if self.tenant and caller.organization_id is None:
            raise forbidden("This key belongs to no organization.")

    def _keep_to_group(self, group_id: str, path_parameters: Mapping[str, Any]) -> None:
        """A key of one group knows no other, and nothing that is of several."""
        named = path_parameters.get("group_id", path_parameters.get("groupId"))
        if named is not None and named != group_id:
            raise not_found("group", str(named), "group_id")
        if named is None and not self.every_group:
            raise forbidden(
                "This key is of one group, and this request is not.",
                "Use a key of scope admin, or of scope group_admin without a group.",
            )

    def body_limit_bytes(self, api: "Api") -> int:
        return api.options.csv_limit_bytes if self.large_body else api.options.body_limit_bytes


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
