"""`/_control/`: the switches of tests. Nothing of the contract; a real partner has none of this."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import httpx
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deploy.embedded.partner import shapes
from deploy.embedded.partner.books import Books
from deploy.embedded.partner.rows import Refusal
from deploy.embedded.partner.sending import signed

Handler = Callable[[Request], Awaitable[Response]]
Shape = TypeVar("Shape")

TIMEOUT_S: Final = 10.0


def routes(books: Books, webhook_secret: str) -> list[tuple[str, str, Handler]]:
    """Method, path and handler of each switch."""
    control = _Control(books, webhook_secret)
    return [
        ("GET", "/_control/state", control.state),
        ("POST", "/_control/next", control.next),
        ("POST", "/_control/reset", control.reset),
        ("POST", "/_control/away", control.away),
        ("POST", "/_control/clock", control.clock),
        ("POST", "/_control/charges/{charge_id}/refund", control.refund),
        ("POST", "/_control/charges/{charge_id}/{outcome}", control.finish),
        ("POST", "/_control/subscriptions/{subscription_id}/renew", control.renew),
        ("POST", "/_control/webhooks", control.delivery),
        ("POST", "/_control/webhooks/release", control.release),
        ("POST", "/_control/webhooks/repeat", control.repeat),
        ("POST", "/_control/webhooks/forge", control.forge),
    ]


class _Control:
    def __init__(self, books: Books, webhook_secret: str) -> None:
        self._books = books
        self._secret = webhook_secret

    async def state(self, _request: Request) -> Response:
        """Everything that is known, for tests."""
        charges = self._books.documents("SELECT document FROM charges ORDER BY number")
        subscriptions = self._books.documents("SELECT document FROM subscriptions ORDER BY rowid")
        requests = self._books.documents("SELECT request FROM purchases ORDER BY rowid")
        return JSONResponse(
            {
                "requests": requests,
                "charges": charges,
                "subscriptions": subscriptions,
                "webhooks": self._books.webhooks(),
            }
        )

    async def next(self, request: Request) -> Response:
        wanted = await _body(request, shapes.Next)
        self._books.set_switch(
            "next", [*self._books.switch("next", []), msgspec.to_builtins(wanted)]
        )
        return _done()

    async def reset(self, _request: Request) -> Response:
        """Forgets everything, switches included."""
        self._books.forget()
        return _done()

    async def away(self, request: Request) -> Response:
        self._books.set_switch("away", (await _body(request, shapes.Away)).away)
        return _done()

    async def clock(self, request: Request) -> Response:
        wanted = (await _body(request, shapes.ClockChange)).now
        ahead = (wanted - datetime.now(UTC)).total_seconds() if wanted else 0.0
        self._books.set_switch("clock_ahead_s", ahead)
        return _done()

    async def finish(self, request: Request) -> Response:
        outcomes: dict[str, shapes.Outcome] = {"succeed": "succeeded", "decline": "declined"}
        outcome = outcomes.get(request.path_params["outcome"])
        if outcome is None:
            raise Refusal(404, "not_found", "succeed or decline")
        return JSONResponse(self._books.finish(request.path_params["charge_id"], outcome))

    async def refund(self, request: Request) -> Response:
        amount = (await _body(request, shapes.Refund)).amount_minor
        return JSONResponse(self._books.refund(request.path_params["charge_id"], amount))

    async def renew(self, request: Request) -> Response:
        outcome = (await _body(request, shapes.Renew)).outcome
        return JSONResponse(self._books.renew(request.path_params["subscription_id"], outcome))

    async def delivery(self, request: Request) -> Response:
        wanted = await _body(request, shapes.Delivery)
        self._books.set_switch("delivery", wanted.mode)
        if wanted.url is not None:
            self._books.set_switch("webhook_url", wanted.url)
        return _done()

    async def release(self, request: Request) -> Response:
        order = (await _body(request, shapes.Release)).order
        self._books.release_webhooks(is_reversed=order == "reversed")
        return _done()

    async def repeat(self, _request: Request) -> Response:
        """Everything that was ever sent goes out again, with the same ids."""
        self._books.database.execute("UPDATE webhooks SET done = NULL, due = 0 WHERE held = 0")
        return _done()

    async def forge(self, request: Request) -> Response:
        """Sends a webhook that no event made, now; answers what it was answered."""
        wanted = await _body(request, shapes.Forge)
        at = datetime.now(UTC) - timedelta(seconds=wanted.age_s)
        content = {"type": wanted.type, "timestamp": at.isoformat(), "data": wanted.data}
        body = msgspec.json.encode(content).decode()
        headers = signed(wanted.secret or self._secret, f"pevt_{secrets.token_hex(8)}", body, at)
        url: str = self._books.switch("webhook_url", "")
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            answer = await client.post(url, content=body, headers=headers)
        return JSONResponse({"status": answer.status_code, "body": answer.text})


async def _body(request: Request, shape: type[Shape]) -> Shape:
    """What a page in a browser cannot send to another address without being asked: JSON."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise Refusal(415, "unsupported_media_type", "Send JSON.")
    return msgspec.json.decode(await request.body(), type=shape)


def _done() -> Response:
    return JSONResponse({"done": True})
