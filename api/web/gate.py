"""The gate: checks whose key a request carries before it looks at anything else of the request.

A request without a key learns nothing: neither whether a path exists nor what is wrong with a body.
Only paths that must be open (health, metrics, the API's description, webhooks, which are signed)
are named here; every other path is closed.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Final

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Refused, unavailable
from api.payments.providers import RETURN_PATH
from api.rules.keys import Scope as KeyScope
from api.rules.keys import authenticate, unauthorized
from api.web.answers import error_response
from api.web.context import Api, Caller

OPEN_PATHS: Final = frozenset(
    {
        "/health/live",
        "/health/ready",
        "/health/ready/control-plane",
        "/health/ready/events",
        "/metrics",
        RETURN_PATH,
        "/webhooks/stripe",
    }
)
API_KEY_PATHS: Final = (
    "/api/v1/credits/organization",
    "/api/v1/credits/website",
    "/api/v1/credits/group",
)
"""Where the key may also come in the header `x-api-key`, as AthenaHQ's clients send it."""
API_KEY_HEADER: Final = "x-api-key"
PARTNERS_PATH: Final = "/webhooks/partners/"
"""What comes behind it is one partner's name; each is signed by it."""
DESCRIPTION_PATHS: Final = frozenset({"/docs", "/docs/oauth2-redirect", "/openapi.json"})
DESCRIPTION_FILES: Final = "/static-offline-docs/"

REQUESTS_AT_ONCE_MAX: Final = 512
LOGINS_AT_ONCE: Final = 8
"""Threads of their own, so that a key is looked up however many others are at work."""
BUSY_RETRY_S: Final = 1

CLOSED_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
DOCS_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'"
)
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
HTTPS_ONLY: Final = "max-age=31536000"


class Gate:
    """ASGI middleware around the whole application; leaves the `Caller` in the request's state."""

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app = app
        self._api = api
        self._at_work = 0
        self._logins = CapacityLimiter(LOGINS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if is_open(path):
            await self._app(scope, receive, self._guarded(send, path))
            return
        try:
            if self._at_work >= REQUESTS_AT_ONCE_MAX:
                raise unavailable("busy", "Too many requests are at work.", BUSY_RETRY_S)
            self._at_work += 1
        except Refused as refused:
            await error_response(refused, path)(scope, receive, self._guarded(send, path))
            return
        try:
            caller = await anyio.to_thread.run_sync(self._identify, scope, limiter=self._logins)
            scope.setdefault("state", {})["caller"] = caller
            await self._app(scope, receive, self._guarded(send, path))
        except Refused as refused:
            await error_response(refused, path)(scope, receive, self._guarded(send, path))
        finally:
            self._at_work -= 1

    def _identify(self, scope: Scope) -> Caller:
        """Whose key this is. Raises Refused (401), or 429 after too many wrong keys of an address;
        a right key is accepted even then, since others may share the address."""
        try:
            headers = Headers(scope=scope)
            secret = headers.get(API_KEY_HEADER) if scope["path"] in API_KEY_PATHS else None
            secret = secret or _secret(headers.get("authorization"))
            with self._api.store.read() as session:
                key = authenticate(session, secret, self._api.control.clock())
        except Refused as refused:
            if refused.status == 401:
                address = scope["client"][0] if scope.get("client") else "unknown"
                self._api.limits.take("failed_logins", address)
            raise
        return Caller(key.id, KeyScope(key.scope), key.organization_id, key.group_id)

    def _guarded(self, send: Send, path: str) -> Callable[[Message], Awaitable[None]]:
        """Adds what browsers and caches must know of every answer."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                is_description = path in DESCRIPTION_PATHS or path.startswith(DESCRIPTION_FILES)
                headers["Content-Security-Policy"] = (
                    DOCS_POLICY if is_description else CLOSED_POLICY
                )
                if not is_description:
                    headers["Cache-Control"] = "no-store"
                if self._api.options.base_url.startswith("https://"):
                    headers["Strict-Transport-Security"] = HTTPS_ONLY
            await send(message)

        return add


def is_open(path: str) -> bool:
    """Whether no key is asked for."""
    if path.startswith(PARTNERS_PATH):
        return "/" not in path.removeprefix(PARTNERS_PATH)
    return path in OPEN_PATHS or path in DESCRIPTION_PATHS or path.startswith(DESCRIPTION_FILES)


def _secret(authorization: str | None) -> str:
    scheme, value = get_authorization_scheme_param(authorization)
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
