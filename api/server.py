"""One API process: `run` serves until a signal ends it."""

import structlog
import uvicorn

from api.app import create_app
from api.options import ApiOptions
from api.storage.migrate import is_current
from api.storage.store import Store, database_url
from schemas.settings import Settings

log = structlog.get_logger()

SHUTDOWN_S = 5


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
    uvicorn.run(
        create_app(settings, chosen),
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
