"""From the key to the handler: what a route demands is asked before its body is read.

In this order: the rate (what is refused counts too), the key's scope and organization, the
parameters' names, and then the body: as large as the route says, and no slower than `PACE`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive

from api.errors import Refused, invalid
from api.web.context import Allow, Api, Caller
from api.web.readers import NewestReaders

GRACE_S: Final = 10.0
PACE_BYTES_A_SECOND: Final = 16_384
"""After `GRACE_S` a body must have come at least this quickly, or its sender is cut off."""
IDEMPOTENCY: Final = "idempotency-key"
LENIENT_PATHS: Final = "/scim/"
"""RFC 7644 3.4.2: unknown query parameters are ignored, for clients of other versions."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class KeyedRoute(APIRoute):
    """A route behind a key: exactly one of its dependencies is an `Allow`."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        parts = _flat(self.dependant)
        (allow,) = (part.call for part in parts if isinstance(part.call, Allow))
        parameters = frozenset(field.alias for part in parts for field in part.query_params)
        headers = frozenset(field.alias.lower() for part in parts for field in part.header_params)

        async def admit(request: Request) -> Response:
            api: Api = request.app.state.api
            caller: Caller = request.state.caller
            request.state.counted = True
            allow.admit(api, caller, request.path_params)
            request.state.admitted_by = allow
            if not request.url.path.startswith(LENIENT_PATHS):
                _refuse_unknown(request, parameters)
            if IDEMPOTENCY in request.headers and IDEMPOTENCY not in headers:
                raise invalid(
                    "This request does not take an Idempotency-Key.",
                    "Idempotency-Key",
                    "Send it without; the OpenAPI document says which requests take one.",
                )
            return await handle(await with_body(request, allow.body_limit_bytes(api)))

        return admit


def _flat(dependant: Dependant) -> list[Dependant]:
    return [dependant, *(part for one in dependant.dependencies for part in _flat(one))]


def _refuse_unknown(request: Request, parameters: frozenset[str]) -> None:
    """A misspelt parameter would otherwise do nothing, in silence."""
    for name in request.query_params:
        if name not in parameters:
            allowed = (
                f"It takes {', '.join(sorted(parameters))}." if parameters else "It takes none."
            )
            raise invalid(
                f"There is no query parameter {name[:80]!r} here.", f"query.{name[:80]}", allowed
            )


async def with_body(request: Request, limit_bytes: int) -> Request:
    """The same request with its whole body, which Starlette keeps for whoever asks."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limit_bytes:
        raise too_large(limit_bytes)
    bounded = Request(request.scope, _bounded(request.receive, limit_bytes))
    try:
        await bounded.body()
    except ClientDisconnect as error:
        raise invalid("The body ended before its end.", "body") from error
    return bounded


async def keyless_body(request: Request, readers: NewestReaders, limit_bytes: int) -> bytes:
    """The body of a request without a key. Raises Refused (400, 408, 413)."""
    try:
        async with readers.one():
            return await (await with_body(request, limit_bytes)).body()
    except TimeoutError as error:
        raise too_slow() from error


def _bounded(receive: Receive, limit_bytes: int) -> Receive:
    started_s = asyncio.get_running_loop().time()
    received_bytes = 0

    async def next_part() -> Message:
        nonlocal received_bytes
        try:
            async with asyncio.timeout_at(
                started_s + GRACE_S + received_bytes / PACE_BYTES_A_SECOND
            ):
                message = await receive()
        except TimeoutError as error:
            raise too_slow() from error
        received_bytes += len(message.get("body", b""))
        if received_bytes > limit_bytes:
            raise too_large(limit_bytes)
        return message

    return next_part


def too_large(limit_bytes: int) -> Refused:
    return Refused(
        413,
        "too_large",
        f"The body is larger than {limit_bytes} bytes.",
        "body",
        "Send it in several requests.",
    )


def too_slow() -> Refused:
    return Refused(
        408,
        "too_slow",
        f"The body came more slowly than {PACE_BYTES_A_SECOND} bytes a second.",
        "body",
        "Send it again, over a better connection or in smaller parts.",
        headers={"Connection": "close"},
    )
