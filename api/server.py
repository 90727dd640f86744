"""One API process: `run` serves until a signal ends it."""

import asyncio
import gc
import socket
import sys
from contextlib import suppress
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.app import create_app
from api.options import ApiOptions, PaymentOptions
from api.storage.revision import is_current
from api.storage.store import Store, database_url
from schemas.settings import Settings
from streams.health import cannot_listen

log = structlog.get_logger()

SHUTDOWN_S: Final = 5
HEAD_S: Final = 10.0
STARTUP_FAILED: Final = 3
COLLECT_EVERY_OBJECTS: Final = 50_000


class CannotListen(Exception):
    """The address or port is not to be had; says which setting chooses another."""


class NotMigrated(Exception):
    """The database lacks tables: run `metering migrate`."""


def run(
    settings: Settings,
    options: ApiOptions | None = None,
    payments: PaymentOptions | None = None,
) -> None:
    """Serves the API; returns after SIGINT or SIGTERM.

    Raises NotMigrated where the database has not the tables of this code, Refused where it does
    not answer, and CannotListen where the port is taken.
    """
    store = Store(database_url(settings))
    try:
        if not is_current(store):
            raise NotMigrated("The control plane's database is not migrated: `metering migrate`.")
    finally:
        store.close()
    chosen = options or ApiOptions()
    listening = _listen(chosen)
    log.info("api starts", host=chosen.host, port=chosen.port)
    app = create_app(settings, chosen, payments=payments)
    calm_collector()
    log_level = "debug" if settings.log_level == "debug" else "warning"
    server = uvicorn.Server(server_config(app, chosen, loop="uvloop", log_level=log_level))
    with suppress(KeyboardInterrupt):
        server.run([listening])
    if not server.started:
        sys.exit(STARTUP_FAILED)


def _listen(options: ApiOptions) -> socket.socket:
    """Before anything starts: uvicorn would say it in a line of its own, at the very end."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        where = (options.host, options.port, "METERING_API_PORT")
        raise CannotListen(cannot_listen(error, *where)) from error
    return listening


def server_config(app: FastAPI, options: ApiOptions, **more: Any) -> uvicorn.Config:
    """How the API is served, in production and in tests; `more` is uvicorn's own settings."""
    return uvicorn.Config(
        app,
        **{
            "host": options.host,
            "port": options.port,
            "http": PatientProtocol,
            "ws": "none",
            # uvicorn's lines look like all others, and its start and end are logged by us.
            "log_config": None,
            # A query string may hold what is secret, and an address is personal.
            "access_log": False,
            "timeout_graceful_shutdown": SHUTDOWN_S,
            "server_header": False,
            # Anybody can write `X-Forwarded-For`: only the configured proxies are believed.
            "proxy_headers": bool(options.trusted_proxies),
            "forwarded_allow_ips": options.trusted_proxies,
            **more,
        },
    )


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with an end to its patience: a connection that has sent no whole request
    head within `HEAD_S`, or does not stop sending after its answer, is closed."""

    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._rewatch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._rewatch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._rewatch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _rewatch(self) -> None:
        """The time runs from the first moment without a request at work, whatever trickles in."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._watch is None and not self.transport.is_closing():
            self._watch = self.loop.call_later(HEAD_S, self.transport.close)

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


def calm_collector() -> None:
    """Garbage collection that does not walk the application's own objects time and again: with
    Python's default, an answer of 20,000 rows pauses for that as long as it is worked on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY_OBJECTS)
