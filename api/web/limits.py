"""Limits of rate and size. A process counts for itself; counters are bounded in number."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import ceil
from threading import Lock
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Refused
from api.web.answers import error_response

COUNTERS_MAX: Final = 100_000
WINDOW_S: Final = 60.0


class RateLimits:
    """Requests a minute, per kind of request and whoever counts for it; safe among threads.

    A bucket of one minute's worth that refills steadily: a full burst is allowed, then the rate.
    """

    def __init__(self, per_minute: Mapping[str, int], monotonic: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def take(self, kind: str, who: str) -> None:
        """Counts one request. Raises Refused (429, with Retry-After) where there were too many."""
        limit = self._per_minute[kind]
        now = self._monotonic()
        with self._lock:
            left, at = self._buckets.pop((kind, who), (float(limit), now))
            left = min(float(limit), left + (now - at) * limit / WINDOW_S)
            allowed = left >= 1.0
            self._buckets[kind, who] = (left - 1.0 if allowed else left, now)
            if len(self._buckets) > COUNTERS_MAX:
                self._buckets.popitem(last=False)
        if not allowed:
            wait_s = max(1, ceil((1.0 - left) * WINDOW_S / limit))
            raise Refused(
                429,
                "rate_limited",
                f"More than {limit} requests a minute.",
                what_to_do=f"Wait {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )


class BodyLimit:
    """ASGI middleware: a body that is too large is answered 413 without being kept."""

    def __init__(self, app: ASGIApp, limit_of: Callable[[str], int]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope["path"])
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await error_response(_too_large(limit), scope["path"])(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message: dict[str, Any] = dict(await receive())
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> Refused:
    return Refused(
        413,
        "too_large",
        f"The body is larger than {limit} bytes.",
        "body",
        "Send it in several requests.",
    )
