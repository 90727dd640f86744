"""Sifting bad rows out of a block while the table is being mended: no timing of a real engine
hits that moment reliably, so the inserter is scripted."""

from dataclasses import dataclass
from typing import Any

from schemas import codec
from sinks.blocks import Block
from sinks.errors import RefusedError
from sinks.store import Store
from streams.outage import Outage
from tests.sinks.feed import posting


@dataclass
class Record:
    value: bytes
    topic: str = "ledger"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    key: bytes = b"org_1"
    headers: tuple[Any, ...] = ()


class MendedAfter:
    """Refuses what it is given so many times, then takes everything."""

    def __init__(self, refusals: int) -> None:
        self.left = refusals
        self.stored: dict[str, list[bytes]] = {}

    async def insert(self, table: str, rows: list[bytes]) -> None:
        if table == "ledger_rows" and self.left:
            self.left -= 1
            raise RefusedError("of another shape")
        self.stored.setdefault(table, []).extend(rows)


async def test_rows_refused_before_the_table_was_mended_go_in() -> None:
    records = [Record(codec.encode(posting(number)), offset=number) for number in range(8)]
    block = Block(1, {"ledger": records}, {}, len(records), 0)
    inserter = MendedAfter(refusals=5)
    store = Store(inserter, Outage("clickhouse"), "cluster", {"ledger": "ledger"} | dict.fromkeys(
        ("usage-rated", "facts-applied", "dead-letters"), "none"
    ))  # fmt: skip

    await store.put(block)

    assert sorted(inserter.stored["ledger_rows"]) == sorted(record.value for record in records)
    assert "sink_rejects" not in inserter.stored
