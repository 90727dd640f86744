"""`metering api`, and the SQL tables behind it."""

import logging
from typing import Annotated

import typer

from cli.command_line import Commands
from cli.configuration import load_settings
from cli.errors import Failure, one_line
from schemas.settings import Settings

app = Commands("The control plane's API.", no_args_is_help=False)


@app.command()
def api(
    openapi: Annotated[
        bool, typer.Option("--openapi", help="Print the OpenAPI document and end.")
    ] = False,
) -> None:
    """Run the control plane's API until SIGTERM."""
    from cli.api import run_api
    from cli.logging_setup import set_up_logging

    settings = load_settings()
    set_up_logging(settings.log_format, settings.log_level)
    run_api(settings, openapi=openapi)


def migrate_database(settings: Settings) -> str:
    """Bring the SQL tables to this release; says in a sentence where. Safe to repeat.

    Raises `Failure` when the database does not answer.
    """
    from sqlalchemy.exc import OperationalError

    from api.storage.migrate import migrate
    from api.storage.store import Store, database_url

    logging.getLogger("alembic").setLevel(logging.WARNING)
    store = Store(database_url(settings))
    try:
        migrate(store)
    except OperationalError as error:
        raise Failure(f"the control plane's database does not answer: {one_line(error)}") from None
    finally:
        store.close()
    return f"control plane: tables in {'SQLite' if store.is_sqlite else 'PostgreSQL'} are current"
