"""One API process: `run` serves until a signal ends it."""

import uvicorn

from api.app import create_app
from api.options import ApiOptions
from api.storage.migrate import is_current
from api.storage.store import Store, database_url
from schemas.settings import Settings

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
    uvicorn.run(
        create_app(settings, chosen),
        host=chosen.host,
        port=chosen.port,
        loop="uvloop",
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
    )
