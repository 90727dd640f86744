"""One partition with its real store, and records for the steps to decide."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from aiokafka.partitioner import murmur2

from schemas import codec, headers, topics
from schemas.settings import Settings
from streams.app import changelog_of
from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.seen import pack
from streams.exactly_once.state import Codec, PartitionState
from streams.exactly_once.transaction import Transaction
from streams.steps import FactStep

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SETTINGS = Settings(alias_secret="a secret of many characters", late_grace_s=3600)
ORGANIZATION = "org_7"
HERE = (murmur2(ORGANIZATION.encode()) & 0x7FFFFFFF) % SETTINGS.partitions


@dataclass
class Record:
    value: bytes | None
    key: bytes | None = ORGANIZATION.encode()
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    offset: int = 0
    partition: int = HERE
    timestamp: int = int(NOW.timestamp() * 1000)


class Recorded(Transaction):
    """A transaction that also keeps what was emitted, by topic."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.emitted: list[
            tuple[str, bytes | None, bytes | None, dict[str, bytes], int | None]
        ] = []

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Any = (),
        partition: int | None = None,
    ) -> None:
        self.emitted.append((topic, key, value, dict(headers), partition))

    def of(self, topic: str) -> list[Any]:
        return [row for row in self.emitted if row[0] == topic]

    def reasons(self) -> list[str]:
        return [row[3][headers.REASON].decode() for row in self.of(topics.DEAD_LETTERS)]


class Partition:
    """One partition's state, committed transaction by transaction without a broker."""

    def __init__(self, directory: Path) -> None:
        self.store = LocalStore(directory, tag="t", window_ms=10**9, max_age_s=3600)
        self.state = PartitionState(
            self.store,
            Codec(codec.encode_state_key, codec.encode, codec.decode_state, changelog_of),
        )

    def run(self, step: Any, *records: Any, now: datetime = NOW) -> Recorded:
        transaction = Recorded(HERE, self.state, self.store, now, None)
        if records:
            step(records, transaction)
        else:
            step(transaction, now)
        self.commit(transaction)
        return transaction

    def commit(self, transaction: Transaction) -> None:
        self.store.seen.insert_packed(pack(transaction.seen), 1)
        self.store.write([(key, value) for _, key, value in self.state.changes()], {})
        self.state.committed()


def usage(identity: str = "e1", quantity: int = 5, **changes: Any) -> Record:
    event = {
        "specversion": "1.0",
        "id": identity,
        "source": "editor",
        "type": "ai.tokens",
        "subject": "user_1",
        "organizationid": ORGANIZATION,
        "data": {"quantity": quantity},
    }
    record_fields = {
        name: changes.pop(name) for name in list(changes) if name in Record.__annotations__
    }
    return Record(value=msgspec.json.encode({**event, **changes}), **record_fields)


def stranger_organization() -> str:
    """An organization of another partition."""
    return next(
        name
        for name in (f"org_{number}" for number in range(100))
        if (murmur2(name.encode()) & 0x7FFFFFFF) % SETTINGS.partitions != HERE
    )


def facts(*rows: dict[str, Any], first: int = 1, organization: str = ORGANIZATION) -> list[Record]:
    return [
        Record(
            msgspec.json.encode(
                {
                    "organization_id": organization,
                    "version": first + number,
                    "recorded_at": NOW - timedelta(days=3),
                    "effective_at": NOW - timedelta(days=3),
                    "fact": row,
                }
            ),
            key=organization.encode(),
        )
        for number, row in enumerate(rows)
    ]


def known_organization(partition: Partition) -> None:
    partition.run(
        FactStep(topics.MEMBERSHIPS, SETTINGS),
        *facts(
            {"type": "organization_created"},
            {"type": "price_set", "meter": "ai.tokens", "micro_per_million_units": 1_000_000},
            {"type": "website_assigned", "website_id": "w1", "group_id": "group_unassigned"},
        ),
    )
