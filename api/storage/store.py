"""Opening the database, and its two kinds of transaction.

A read is one snapshot on both databases. A write on SQLite begins IMMEDIATE, so that two writers
wait for each other instead of failing late; on PostgreSQL the rules lock the organization's row.
Nobody waits without an end: for a turn to write, a connection or a lock there is a limit, and then
503. Reads and writes have connections of their own, so that neither uses up the other's.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.orm import Session

from api.errors import invalid, unavailable
from api.storage.turns import EVERYBODY, Turns
from schemas.settings import Settings

LOCK_WAIT_MS: Final = 5_000
"""For whoever writes outside of this process: a command, another API."""
READS_AT_ONCE: Final = 20
SQLITE_READS_AT_ONCE: Final = 60
"""One for each thread that reads: they are only open files."""
WRITES_AT_ONCE: Final = 8
POOL_WAIT_S: Final = 2
RETRY_S: Final = 2
OWNER_ONLY: Final = 0o600
PRICE_BOOK_LOCK_ID: Final = 7_236_403
SQLITE_DISK_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
POSTGRESQL_DISK_FULL: Final = "53100"


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
        if self.is_sqlite:
            self.engine = _sqlite_engine(url, SQLITE_READS_AT_ONCE)
            self.turns = Turns(1)
            self._write_engine = _sqlite_engine(url, 1)
            self._reading: Engine = self.engine
            self._writing: Engine = self._write_engine.execution_options(begin="IMMEDIATE")
        else:
            self.engine = _postgresql_engine(url, READS_AT_ONCE)
            self.turns = Turns(WRITES_AT_ONCE)
            self._write_engine = _postgresql_engine(url, WRITES_AT_ONCE)
            self._reading = self.engine.execution_options(isolation_level="REPEATABLE READ")
            self._writing = self._write_engine

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent snapshot; what is changed in it is thrown away.

        Raises Refused (503) where the database does not answer.
        """
        with _clear_errors(), Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, whose: str = EVERYBODY, wait_s: float | None = None) -> Iterator[Session]:
        """Commits when the block ends, and undoes everything when it raises.

        `whose` is the organization that is changed, if it is one. Raises Refused (503) where the
        turn to write does not come within `wait_s` (a few seconds), or the database is away.
        """
        with self.turns.turn(whose, wait_s), _clear_errors(), self._session() as session:
            yield session

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self.engine.dispose()
        self._write_engine.dispose()


@contextmanager
def _clear_errors() -> Iterator[None]:
    """A database that is away or too busy is an answer (503), not a crash; so is a value that
    it cannot hold, such as a text with a NUL (400)."""
    try:
        yield
    except DataError as error:
        raise invalid("A value cannot be kept, perhaps for a NUL character in it.") from error
    except PoolExhausted as error:
        raise unavailable("busy", "Too many requests ask the database.", RETRY_S) from error
    except OperationalError as error:
        why = "has no room on its disk" if _is_full(error) else "does not answer"
        raise unavailable("database_unavailable", f"The database {why}.", RETRY_S) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise unavailable("database_unavailable", "The database went away.", RETRY_S) from error
        raise


def _is_full(error: OperationalError) -> bool:
    return (
        getattr(error.orig, "sqlite_errorcode", None) in SQLITE_DISK_FULL
        or getattr(error.orig, "sqlstate", None) == POSTGRESQL_DISK_FULL
    )


def lock_price_book(session: Session) -> None:
    """New organizations and new default prices one after the other, so that neither misses the
    other; until the transaction ends. On SQLite any write is alone already."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": PRICE_BOOK_LOCK_ID})


def _sqlite_engine(url: str, connections_max: int) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_WAIT_MS / 1000, "check_same_thread": False},
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
    )
    database = make_url(url).database

    def on_first_connect(*_: Any) -> None:
        # SQLite would make the file as readable as the process's umask lets it; what it makes
        # beside it (`-wal`, `-shm`) gets the file's own mode.
        # Where that cannot be, SQLite itself says what is wrong with the path.
        # A file that exists is never opened here: closing it again would release every lock that
        # this process holds on it (POSIX), and another process would take the log away from under
        # it.
        if database:
            with suppress(OSError):
                os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWNER_ONLY))
            with suppress(OSError):
                os.chmod(database, OWNER_ONLY)

    def on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        # SQLAlchemy says BEGIN itself (below); the driver's own would come too late for reads.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    def on_begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")

    event.listen(engine, "do_connect", on_first_connect, once=True)
    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _postgresql_engine(url: str, connections_max: int) -> Engine:
    return create_engine(
        url,
        connect_args={
            "options": f"-c lock_timeout={LOCK_WAIT_MS} -c timezone=UTC",
            "connect_timeout": 5,
        },
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        pool_pre_ping=True,
    )
