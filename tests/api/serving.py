"""The API on a port of its own, in a thread; and keys to talk to it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from api.app import create_app, utc_now
from api.clock import Clock
from api.options import ApiOptions, PaymentOptions
from api.rules.change import Actor, Control
from api.rules.keys import Scope, create_key
from api.rules.organizations import OrganizationSettings, create_organization
from api.server import server_config
from api.storage.migrate import migrate
from api.storage.store import Store, database_url
from deploy.embedded.ports import free_port
from schemas.settings import Settings

SETUP = Actor("cli:tests", "api")


@dataclass
class Served:
    """A running API. `client` gives a client that sends the key as Cursor's scripts do."""

    url: str
    app: FastAPI

    @property
    def control(self) -> Control:
        control: Control = self.app.state.api.control
        return control

    def key(self, scope: str, organization_id: str | None = None) -> str:
        with self.control.transaction(SETUP) as transaction:
            return create_key(transaction, Scope(scope), "test", organization_id).secret

    def client(
        self, scope: str, organization_id: str | None = "org_a", **options: Any
    ) -> httpx.Client:
        bound = None if scope == "operator" else organization_id
        auth = (self.key(scope, bound), "")
        return httpx.Client(base_url=self.url, auth=auth, timeout=30, **options)


@contextmanager
def serving(
    settings: Settings,
    clock: Clock = utc_now,
    payments: PaymentOptions | None = None,
    **options: Any,
) -> Iterator[Served]:
    """Serves a migrated database with the organizations `org_a` and `org_b`."""
    store = Store(database_url(settings))
    migrate(store)
    store.close()
    port = free_port()
    chosen = ApiOptions(**{"port": port, "publish": False, "rate_per_minute": 100_000, **options})
    app = create_app(settings, chosen, clock, payments)
    server = uvicorn.Server(server_config(app, chosen, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    served = Served(f"http://127.0.0.1:{port}", app)
    try:
        for organization_id in ("org_a", "org_b"):
            with served.control.transaction(SETUP) as transaction:
                create_organization(
                    transaction, organization_id, OrganizationSettings(), organization_id
                )
        yield served
    finally:
        server.should_exit = True
        thread.join(20)
