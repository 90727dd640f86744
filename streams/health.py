"""`/metrics`, `/health/live` and `/health/ready` of a process that has no other web server.

Lives here: the server only. What is healthy is asked of two functions at each request, so that an
answer is never older than the question.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

Check = Callable[[], str | None]
"""None when all is well, else a sentence about what is not. Called on the event loop: no I/O."""

SHUTDOWN_S: Final = 1.0


class HealthServer:
    """A server that runs on the event loop it was started on."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner

    @property
    def port(self) -> int:
        """The port it listens on, also where 0 (any) was asked for."""
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()


async def serve_health(
    host: str, port: int, live: Check, ready: Check, registry: CollectorRegistry = REGISTRY
) -> HealthServer:
    """Listen and return. Raises OSError when the port is taken.

    `/health/live` and `/health/ready` answer 200, or 503 with the sentence.
    """
    application = web.Application()
    application.router.add_get("/metrics", _metrics(registry))
    application.router.add_get("/health/live", _health(live))
    application.router.add_get("/health/ready", _health(ready))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return HealthServer(runner)


def cannot_listen(error: OSError, host: str, port: int, variable: str) -> str:
    """The sentence for an operator; `variable` is the setting that chooses the port."""
    why = os.strerror(error.errno) if error.errno else str(error)
    return f"cannot listen at {host}:{port} ({why}): {variable} chooses another port"


def _metrics(registry: CollectorRegistry) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    return handler


def _health(check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(_request: web.Request) -> web.Response:
        problem = check()
        return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")

    return handler
