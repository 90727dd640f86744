"""Work that one process does at a time: it holds a lock, which is free again as soon as it ends.

Two holders would do no harm (everything may be done twice), only double the work.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError

from api.storage.store import Store

PUBLISHING: Final = "publisher"
PAYMENTS: Final = "payments"
LOCK_IDS: Final = {PUBLISHING: 7_236_402, PAYMENTS: 7_236_404}


class WorkLock(Protocol):
    """Blocks its thread briefly at most."""

    def take(self) -> bool:
        """Whether this process has the lock now."""

    def release(self) -> None:
        """Nothing happens where it was not held."""


def work_lock(store: Store, work: str) -> WorkLock:
    """The lock of this kind of work (`PUBLISHING`, …) on this database."""
    return _FileLock(store, work) if store.is_sqlite else _AdvisoryLock(store, LOCK_IDS[work])


class _FileLock:
    """Beside the SQLite file; the operating system ends it with the process."""

    def __init__(self, store: Store, work: str) -> None:
        self._path = Path(f"{make_url(store.url).database}.{work}-lock")
        self._file: int | None = None

    def take(self) -> bool:
        if self._file is not None:
            return True
        opened = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            return False
        self._file = opened
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _AdvisoryLock:
    """On a connection of its own; PostgreSQL ends it with the connection."""

    def __init__(self, store: Store, lock_id: int) -> None:
        self._store = store
        self._lock_id = lock_id
        self._connection: Connection | None = None

    def take(self) -> bool:
        connection = self._connection or self._store.engine.connect()
        try:
            # Repeated by the holder, this counts up and is true: it also shows that the
            # connection still lives.
            is_ours = connection.scalar(
                text("SELECT pg_try_advisory_lock(:id)"), {"id": self._lock_id}
            )
            connection.commit()
        except DBAPIError:
            connection.invalidate()
            connection.close()
            self._connection = None
            return False
        if not is_ours:
            connection.close()
            return False
        self._connection = connection
        return True

    def release(self) -> None:
        if self._connection is not None:
            # The server would notice a closed connection only a moment later.
            with suppress(DBAPIError):
                self._connection.execute(text("SELECT pg_advisory_unlock_all()"))
            # The connection is closed for good, since it may still hold the lock.
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
