"""One API process: `run` serves until a signal ends it."""

import gc
from typing import Final

import structlog
import uvicorn

from api.app import create_app
from api.options import ApiOptions
from api.storage.revision import is_current
from api.storage.store import Store, database_url
from schemas.settings import Settings

log = structlog.get_logger()

SHUTDOWN_S: Final = 5
COLLECT_EVERY_OBJECTS: Final = 50_000


class NotMigrated(Exception):
    """The database lacks tables: run `metering migrate`."""


def run(settings: Settings, options: ApiOptions | None = None) -> None:
    """Serves the API; returns after SIGINT or SIGTERM.

    Raises NotMigrated where the database has not the tables of this code, and Refused where it
    does not answer.
    """
    store = Store(database_url(settings))
    try:
        if not is_current(store):
            raise NotMigrated("The control plane's database is not migrated: `metering migrate`.")
    finally:
        store.close()
    chosen = options or ApiOptions()
    log.info("api starts", host=chosen.host, port=chosen.port)
    app = create_app(settings, chosen)
    calm_collector()
    uvicorn.run(
        app,
        host=chosen.host,
        port=chosen.port,
        loop="uvloop",
        # Its lines are to look as all others do; its coming and going is ours to tell.
        log_config=None,
        log_level="debug" if settings.log_level == "debug" else "warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
    )


def calm_collector() -> None:
    """Garbage collection that does not walk the application's own objects time and again: with
    Python's default, an answer of 20,000 rows pauses for that as long as it is worked on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY_OBJECTS)
