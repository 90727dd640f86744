"""The stand-in as one ASGI application, and a server of it on a port of this machine."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploy.embedded.stripe.api import Api, OnRequest
from deploy.embedded.stripe.control import Control
from deploy.embedded.stripe.pages import Pages
from deploy.embedded.stripe.store import Store
from deploy.embedded.stripe.webhooks import Webhooks
from deploy.embedded.stripe.world import World

HOST: Final = "127.0.0.1"
DATABASE: Final = "stripe.sqlite"
KEEP_ALIVE_S: Final = 75


@dataclass(frozen=True, slots=True)
class Settings:
    """`key` is what clients authenticate with, `token` opens `/_control/`. With `webhook_url`,
    events go there, signed with `webhook_secret`; without, where the control endpoints said."""

    directory: Path
    port: int
    key: str
    token: str
    webhook_url: str = ""
    webhook_secret: str = ""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def make_app(settings: Settings, on_request: OnRequest) -> Starlette:
    settings.directory.mkdir(parents=True, exist_ok=True)
    store = Store(settings.directory / DATABASE)
    world = World(store, settings.url)
    webhooks = Webhooks(world)
    with store.transaction():
        if store.setting("account") is None:
            store.set("account", f"acct_{secrets.token_hex(8)}")
        if settings.webhook_url:
            endpoint = {"url": settings.webhook_url, "secret": settings.webhook_secret}
            store.set("endpoint", endpoint)

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": True, "pid": os.getpid()})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(webhooks.run())
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await webhooks.close()
            store.close()

    methods = ["GET", "POST", "DELETE", "PUT", "PATCH"]
    return Starlette(
        routes=[
            Route("/health/ready", ready),
            *Control(world, webhooks, settings.token, settings.port).routes(),
            *Pages(world, settings.port).routes(),
            Route("/{path:path}", Api(world, settings.key, on_request).answer, methods=methods),
        ],
        lifespan=lifespan,
    )


class Server(uvicorn.Server):
    """uvicorn without its ten looks a second at whether it is to stop: it is told."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()

    def stop(self) -> None:
        """From any thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told.set)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.stop()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_ready()
        await self.on_tick(0)
        if not self.should_exit:
            await self._told.wait()


def make_server(
    settings: Settings,
    on_ready: Callable[[], None] = lambda: None,
    on_request: OnRequest = lambda method, path, query, body: None,
) -> Server:
    """`on_ready` is called once it listens."""
    config = uvicorn.Config(
        make_app(settings, on_request),
        host=HOST,
        port=settings.port,
        log_level="warning",
        access_log=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
    )
    return Server(config, on_ready)
