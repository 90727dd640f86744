"""How a local store fails. A failure of the store is the disk's fault, never that of the record
which was being decided, so no decision may take it for its own failure and refuse the record.
"""

import errno
import os
from pathlib import Path
from typing import Final


class StoreError(Exception):
    """The local store cannot be used."""


class StoreDamaged(StoreError):
    """What is on disk is not what was written: to be discarded and rebuilt from the changelogs."""


class StoreFailed(StoreError):
    """The disk does not do what it is asked to, and would not a second time either: the process
    ends with this text."""

    @classmethod
    def of(cls, error: OSError, path: Path) -> "StoreFailed":
        """In words; a full disk is called so."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return cls(DISK_FULL.format(path=path))
        return cls(f"{os.strerror(error.errno or 0)}: {path}")


DISK_FULL: Final = (
    "the disk is full, so {path} cannot be written; make room, and the worker goes on where it was"
)


_DAMAGE: Final = (
    *("No such file", "Input/output error"),
    *("Is a directory", "Not a directory", "File exists"),
)
_OF_ANOTHER_KIND: Final = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


def of_opening(error: OSError, path: Path) -> StoreDamaged | StoreFailed:
    """What it means that a store's files do not open: a directory in place of a file, or a file
    in place of a directory, is none that we wrote."""
    if error.errno in _OF_ANOTHER_KIND:
        return StoreDamaged(f"{os.strerror(error.errno)}: {error.filename or path}")
    return StoreFailed.of(error, path)


def of_rocksdb(error: Exception, path: Path) -> StoreDamaged | StoreFailed:
    """What RocksDB's exception means, which has one type for all. Damage if in doubt: rebuilding
    costs time, not truth."""
    text = " ".join(str(error).split())
    if "No space left" in text or "quota exceeded" in text:
        return StoreFailed(DISK_FULL.format(path=path))
    is_damaged = any(what in text for what in _DAMAGE)
    # These say that a file cannot be locked, opened or written, not that it is damaged.
    if not is_damaged and (text.startswith("IO error") or "(os error" in text):
        return StoreFailed(text)
    return StoreDamaged(f"RocksDB says: {text}")
