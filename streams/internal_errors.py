"""What happens when a decision raises. That is a bug of ours, and it ends at worst one record.

It never ends the process, which would read the same record again after a restart. Each error is
counted for the alert and logged once a minute a kind, because a bug may meet every event of a
backlog.
"""

import traceback
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from streams.exactly_once import Transaction

log = structlog.get_logger()

SILENCE: Final = timedelta(minutes=1)
KINDS_LIMIT: Final = 100


class InternalErrors:
    """Notes decisions that raised; each kind (exception and place) is logged once a minute."""

    def __init__(self) -> None:
        self._silent_until: dict[str, datetime] = {}

    def note(self, transaction: Transaction, error: Exception) -> str:
        """Counts it and returns the detail for the dead letter."""
        transaction.count("internal_errors")
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
        kind = f"{type(error).__name__} at {where[-1] if where else 'an unknown place'}"
        now = transaction.now
        if now >= self._silent_until.get(kind, now):
            if len(self._silent_until) >= KINDS_LIMIT:
                self._silent_until.clear()
            self._silent_until[kind] = now + SILENCE
            log.error("a decision failed", error=repr(error)[:500], where=where[-10:])
        return f"The decision failed with {kind}; this is a bug of the pipeline."
