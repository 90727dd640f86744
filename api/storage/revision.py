"""Whether the database has the tables of this code. Without Alembic, which takes longer to import
than most commands run.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import inspect, text

from api.storage.store import Store

VERSIONS: Final = Path(__file__).with_name("migrations") / "versions"
VERSION_TABLE: Final = "alembic_version"


def head() -> str:
    """The revision that this code expects: files are named `NNNN_what.py`, NNNN being the id."""
    return max(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*_*.py"))


def is_current(store: Store) -> bool:
    """Whether the database has exactly the tables that this code expects."""
    with store.engine.connect() as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return False
        revisions = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars()  # noqa: S608 - a constant
        return list(revisions) == [head()]
