"""Bringing the database to the present tables, from any earlier ones. Safe to repeat."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import make_url, text

from api.storage.store import Store

MIGRATIONS: Final = Path(__file__).with_name("migrations")
LOCK_ID: Final = 7_236_401
"""PostgreSQL advisory lock: two processes that start at once migrate one after the other."""


def migrate(store: Store) -> None:
    """Applies every missing migration; creates the SQLite file and its directory if needed."""
    database = make_url(store.url).database
    if store.is_sqlite and database:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    with store.engine.connect() as connection:
        if not store.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config
