"""The exactly-once runtime under Faust: see README.md for what it guarantees.

Lives here: batch transport, lanes (one transaction at a time a partition), changelogs, recovery,
the local store. May import Faust, aiokafka, RocksDB, `streams.wire`, `schemas.codec` and
`schemas.progress`. Never here: anything about usage, credits or prices; a decision is handed in as
a function.
"""

from streams.exactly_once.batches import Batch
from streams.exactly_once.config import Committed, RuntimeConfig
from streams.exactly_once.errors import StoreError
from streams.exactly_once.faust_settings import faust_settings
from streams.exactly_once.lanes import Decide
from streams.exactly_once.runtime import ExactlyOnce
from streams.exactly_once.transaction import Transaction
from streams.wire.record_batch import Record

__all__ = [
    "Batch",
    "Committed",
    "Decide",
    "ExactlyOnce",
    "Record",
    "RuntimeConfig",
    "StoreError",
    "Transaction",
    "faust_settings",
]
