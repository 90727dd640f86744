"""The contract's endpoints, as a partner would write them: signature first, then all else."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploy.embedded.partner import control, portal
from deploy.embedded.partner.books import Books
from deploy.embedded.partner.rows import Refusal, text_of, time_of
from deploy.embedded.partner.sending import Sender
from deploy.embedded.partner.shapes import ChargeRequest, Next, SubscriptionChange

BASE: Final = "/metering/v1"
VERSION: Final = "1"
BODY_BYTES_MAX: Final = 65_536
PAGE_MAX: Final = 100
SILENCE_S: Final = 600.0
SILENCE_LOOK_S: Final = 0.05

Shape = TypeVar("Shape")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Keys:
    """`signing` is the customer's, whose requests it checks; `webhook` signs what goes there."""

    signing: str
    webhook: str


def make_app(books: Books, keys: Keys, address: str) -> Starlette:
    """`address` is where the server itself is reached, for links."""
    partner = _Partner(books, keys, address)
    sender = Sender(books, keys.webhook)
    contract: list[tuple[str, str, Handler]] = [
        ("POST", "/charges", partner.charge),
        ("GET", "/charges", partner.charges),
        ("GET", "/purchases/{purchase_id}", partner.purchase),
        ("POST", "/subscriptions/{subscription_id}/{action}", partner.change),
        ("GET", "/portal", partner.portal),
    ]
    routes = [
        Route(BASE + path, _answered(handler, sender), methods=[method])
        for method, path, handler in contract
    ]
    routes += [
        Route(path, _answered(handler, sender), methods=[method])
        for method, path, handler in [*control.routes(books, keys.webhook), *portal.routes(books)]
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> Any:
        sending = asyncio.create_task(sender.run())
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    only_here = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return Starlette(routes=routes, middleware=[only_here], lifespan=lifespan)


def _answered(handler: Handler, sender: Sender) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            body = {"error": {"code": refusal.code, "message": refusal.message}}
            return JSONResponse(body, refusal.status)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return JSONResponse({"error": {"code": "invalid_request", "message": str(error)}}, 400)
        finally:
            # Whatever happened may have made a webhook.
            sender.wake()

    return answer


class _Partner:
    def __init__(self, books: Books, keys: Keys, address: str) -> None:
        self._books = books
        self._keys = keys
        self._address = address

    async def charge(self, request: Request) -> Response:
        body = await self._signed(request)
        wanted = msgspec.json.decode(body, type=ChargeRequest)
        key = request.headers.get("idempotency-key", "")
        if not 1 <= len(key) <= 255:
            raise Refusal(400, "invalid_request", "The Idempotency-Key is missing.")
        happens = self._next()
        if happens.fault == "refuse":
            raise Refusal(happens.status, happens.code, happens.message)
        if happens.fault == "silent_before":
            await _silence(request)
        charge, is_new = self._books.charge(wanted, key, body, happens.outcome, happens.message)
        if happens.fault == "silent_after":
            await _silence(request)
        if happens.fault == "error_after":
            raise Refusal(500, "internal_error", "Something broke after the charge.")
        if happens.fault == "garbage_after":
            return Response("<html>502</html>", 201)
        return JSONResponse(charge, 201 if is_new else 200)

    async def charges(self, request: Request) -> Response:
        await self._signed(request)
        since = _time(request.query_params.get("since", ""))
        limit = request.query_params.get("limit", str(PAGE_MAX))
        if not limit.isdecimal() or not 1 <= int(limit) <= PAGE_MAX:
            raise Refusal(400, "invalid_request", f"`limit` is 1 to {PAGE_MAX}.")
        cursor = request.query_params.get("cursor", "")
        found = self._books.changed_since(since, cursor, int(limit))
        is_last = len(found) < int(limit)
        next_cursor = "" if is_last else f"{found[-1]['updated_at']} {found[-1]['charge_id']}"
        return JSONResponse({"charges": found, "next_cursor": next_cursor})

    async def purchase(self, request: Request) -> Response:
        await self._signed(request)
        return JSONResponse(self._books.purchase(request.path_params["purchase_id"]))

    async def change(self, request: Request) -> Response:
        body = await self._signed(request)
        change = msgspec.json.decode(body, type=SubscriptionChange)
        in_path = (request.path_params["subscription_id"], request.path_params["action"])
        if (change.subscription_id, change.action) != in_path:
            raise Refusal(400, "invalid_request", "The body says otherwise than the path.")
        return JSONResponse(self._books.change_subscription(change))

    async def portal(self, request: Request) -> Response:
        await self._signed(request)
        names = ("organization", "pool_kind", "pool")
        asked = [request.query_params.get(name, "") for name in names]
        if not all(asked):
            raise Refusal(400, "invalid_request", f"Give {', '.join(names)}.")
        token, expires_at = self._books.open_portal(*asked)
        url = f"{self._address}/portal/{token}"
        return JSONResponse({"url": url, "expires_at": text_of(expires_at)})

    async def _signed(self, request: Request) -> bytes:
        """The body, once its signature was found good; a GET signs its method and target."""
        if self._books.switch("away", False):
            raise Refusal(503, "unavailable", "Away for maintenance.")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > BODY_BYTES_MAX:
                raise Refusal(400, "invalid_request", "The body is too large.")
        signed = bytes(body)
        if request.method == "GET":
            raw_path: bytes = request.scope["raw_path"]
            target = raw_path.decode().partition("?")[0].removeprefix(BASE)
            query = request.scope["query_string"].decode()
            signed = f"GET {target}{'?' if query else ''}{query}".encode()
        try:
            Webhook(self._keys.signing).verify(signed, dict(request.headers), json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            raise Refusal(401, "bad_signature", str(error)) from error
        if request.headers.get("metering-contract-version") != VERSION:
            raise Refusal(422, "unsupported", f"This is version {VERSION} of the contract.")
        return bytes(body)

    def _next(self) -> Next:
        """What is to happen to this charge; the switch counts down, and survives a kill."""
        waiting: list[dict[str, Any]] = self._books.switch("next", [])
        if not waiting:
            return Next()
        happens = msgspec.convert(waiting[0], Next)
        left = {**waiting[0], "times": happens.times - 1}
        self._books.set_switch("next", [left, *waiting[1:]] if left["times"] else waiting[1:])
        return happens


async def _silence(request: Request) -> None:
    """Until whoever asked has gone. Raises Refusal, which nobody hears."""
    for _ in range(int(SILENCE_S / SILENCE_LOOK_S)):
        if await request.is_disconnected():
            break
        await asyncio.sleep(SILENCE_LOOK_S)
    raise Refusal(504, "silence", "Nobody waits for this.")


def _time(text: str) -> datetime:
    try:
        at = time_of(text)
    except ValueError as error:
        raise Refusal(400, "invalid_request", "`since` is to be an RFC 3339 time.") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)
