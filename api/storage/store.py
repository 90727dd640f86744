"""Opening the database, and its two kinds of transaction.

A write on SQLite begins IMMEDIATE, so that two writers wait for each other instead of failing
late; on PostgreSQL the rules lock the organization's row.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from api.errors import invalid, unavailable
from schemas.settings import Settings

BUSY_TIMEOUT_MS: Final = 15_000
POOL_CONNECTIONS_MAX: Final = 20
POOL_WAIT_S: Final = 15
PRICE_BOOK_LOCK_ID: Final = 7_236_403


def database_url(settings: Settings) -> str:
    """The configured database, or a SQLite file in the data directory."""
    if settings.database_url:
        url = make_url(settings.database_url)
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        return url.render_as_string(hide_password=False)
    return f"sqlite:///{settings.data_dir.resolve() / 'control-plane.sqlite'}"


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite address; None for any other database, and for one in memory."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


class Store:
    """The database of one process; safe to share among threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(url) if self.is_sqlite else _postgresql_engine(url)
        self._writing = self.engine.execution_options(begin="IMMEDIATE")
        self._write_lock = Lock()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent snapshot; what is changed in it is thrown away.

        Raises Refused (503) where the database does not answer.
        """
        with _clear_errors(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Commits when the block ends, and undoes everything when it raises."""
        if not self.is_sqlite:
            with _clear_errors(), self._session() as session:
                yield session
            return
        # Threads of one process queue fairly here; SQLite's own waiting is by polling.
        with self._write_lock, _clear_errors(), self._session() as session:
            yield session

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def _clear_errors() -> Iterator[None]:
    """A database that is away or too busy is an answer (503), not a crash; so is a value that
    it cannot hold, such as a text with a NUL (400)."""
    try:
        yield
    except DataError as error:
        raise invalid("A value cannot be kept, perhaps for a NUL character in it.") from error
    except OperationalError as error:
        raise unavailable("database_unavailable", "The database does not answer.", 2) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise unavailable("database_unavailable", "The database went away.", 2) from error
        raise


def lock_price_book(session: Session) -> None:
    """New organizations and new default prices one after the other, so that neither misses the
    other; until the transaction ends. On SQLite any write is alone already."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": PRICE_BOOK_LOCK_ID})


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        pool_size=POOL_CONNECTIONS_MAX,
        max_overflow=POOL_CONNECTIONS_MAX,
        pool_timeout=POOL_WAIT_S,
    )

    def on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        # SQLAlchemy says BEGIN itself (below); the driver's own would come too late for reads.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    def on_begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _postgresql_engine(url: str) -> Engine:
    return create_engine(
        url,
        connect_args={
            "options": f"-c lock_timeout={BUSY_TIMEOUT_MS} -c timezone=UTC",
            "connect_timeout": 5,
        },
        pool_size=POOL_CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        pool_pre_ping=True,
    )
