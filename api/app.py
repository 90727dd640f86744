"""The FastAPI application: its parts, routers, limits and errors."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api.clock import Clock
from api.ingest import Ingest
from api.options import ApiOptions, PaymentOptions
from api.outbox.service import Outbox
from api.payments.desk import make_desk
from api.payments.partners.file import load_partners
from api.reading.spend import Spend
from api.rules.change import Control
from api.scim import routes as scim_routes
from api.storage.store import Store, database_url
from api.web import (
    credits,
    events,
    health,
    partner_webhooks,
    returned,
    teams_audit,
    teams_daily,
    teams_groups,
    teams_usage,
    v1_balances,
    v1_billing,
    v1_csv,
    v1_groups,
    v1_keys,
    v1_members,
    v1_organizations,
    v1_overage,
    v1_packages,
    v1_purchases,
    webhooks,
)
from api.web.answers import add_error_handlers
from api.web.context import Api
from api.web.document import document
from api.web.gate import Gate
from api.web.limits import RateLimits
from schemas.settings import Settings

TITLE: Final = "Metering control plane"
VERSION: Final = "1"
LOOKS_A_MINUTE: Final = 12
"""At each purchase, for whoever waits for its payment; more often the answer is what is known."""
FIRST_LOOK_S: Final = 10.0
"""How long the start waits for the topics to be compared with the database, if Kafka is away."""

PARTS: Final = (
    teams_groups,
    teams_usage,
    teams_daily,
    teams_audit,
    v1_organizations,
    v1_balances,
    v1_overage,
    v1_csv,
    v1_groups,
    v1_members,
    v1_keys,
    v1_packages,
    v1_billing,
    v1_purchases,
    credits,
    scim_routes,
    events,
    webhooks,
    partner_webhooks,
    health,
    returned,
)
"""The modules with routes, in the order in which the description has them."""

DESCRIPTION: Final = """\
Organizations, members, billing groups, keys, prices and credits; usage and spend.

`/teams` has the shapes of Cursor's Admin API, `/api/v1/credits` those of AthenaHQ's credits API;
`/v1` is our own; `/scim/v2` is SCIM 2.0. Send an
API key as the user name of Basic authentication (no password), or as a Bearer token.
"""


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(
    settings: Settings,
    options: ApiOptions | None = None,
    clock: Clock = utc_now,
    payments: PaymentOptions | None = None,
) -> FastAPI:
    """The application on a migrated database. It starts and stops its own publishing."""
    chosen = options or ApiOptions()
    store = Store(database_url(settings))
    control = Control(store, clock, settings.alias_secret.get_secret_value().encode())
    api = Api(
        settings,
        chosen,
        store,
        control,
        Spend(settings),
        _limits(chosen),
        Ingest(settings, store, chosen.ingest_waiting_max),
        make_desk(
            control,
            payments or PaymentOptions(),
            chosen.base_url,
            load_partners(settings.partners_file),
        ),
    )
    # Keys are typed into this page, so no script may come from elsewhere; and many installations
    # have no way out to the network anyway.
    app = FastAPIOffline(
        redoc_url=None,
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        lifespan=_lifespan(api),
        generate_unique_id_function=lambda route: f"{route.path.split('/')[1]}_{route.name}",
    )
    app.state.api = api
    for part in PARTS:
        app.include_router(part.router)
    add_error_handlers(app)
    app.add_middleware(Gate, api=api)
    app.openapi = lambda: document(app, chosen.public_url)  # type: ignore[method-assign]
    return app


def _limits(chosen: ApiOptions) -> RateLimits:
    return RateLimits(
        {
            "api": chosen.rate_per_minute,
            "usage": chosen.usage_rate_per_minute,
            "scim": chosen.scim_rate_per_minute,
            "ingest": chosen.ingest_rate_per_minute,
            "looks": LOOKS_A_MINUTE,
            "failed_logins": chosen.failed_logins_per_minute,
        },
        time.monotonic,
    )


def _lifespan(api: Api) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def run(_app: FastAPI) -> AsyncIterator[None]:
        outbox = Outbox(api.settings, api.store, api.control.clock)
        if api.options.publish:
            api.control.committed = outbox.wake
            await outbox.start()
            # A restored backup must be noticed before the first change is taken.
            with suppress(TimeoutError):
                await asyncio.wait_for(outbox.first_look.wait(), FIRST_LOOK_S)
        await api.desk.start()
        try:
            yield
        finally:
            await api.desk.stop()
            if api.options.publish:
                await outbox.stop()
            await api.ingest.close()
            api.spend.close()
            api.store.close()

    return run


def openapi(settings: Settings) -> dict[str, Any]:
    """The document alone, for `metering api --openapi`; opens no connection."""
    return create_app(settings).openapi()
