"""The topics as data, read from `topics.toml`, the one place where they are described."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

USAGE: Final = "usage"
MEMBERSHIPS: Final = "memberships"
CREDITS: Final = "credits"
USAGE_RATED: Final = "usage-rated"
LEDGER: Final = "ledger"
FACTS_APPLIED: Final = "facts-applied"
DEAD_LETTERS: Final = "dead-letters"
BALANCES: Final = "balances"
STATE: Final = "metering-state"
SEEN: Final = "metering-seen"

INPUTS: Final = (USAGE, MEMBERSHIPS, CREDITS)
FACTS: Final = (MEMBERSHIPS, CREDITS)
CHANGELOGS: Final = (BALANCES, STATE, SEEN)
SINK_INPUTS: Final = (USAGE_RATED, LEDGER, FACTS_APPLIED, DEAD_LETTERS)

ORIGINAL_APPEND_TIME_HEADER: Final = "metering-original-append-time"
"""Milliseconds since 1970 as text, set by a replay: the event's age is judged, and an absent time
filled in, as of then. Only who may write to `usage` can set it; it may not lie in the future."""

USAGE_VALUE_LIMIT_BYTES: Final = 64 * 1024
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the contract; `name` is without the configured prefix."""

    name: str
    key: str
    writer: str
    readers: tuple[str, ...]
    cleanup: str
    retention_days: int
    max_message_bytes: int
    about: str

    def broker_config(self) -> dict[str, str]:
        """The broker's topic settings that this contract needs."""
        retention_ms = -1 if self.retention_days < 0 else self.retention_days * DAY_MS
        settings = {
            "cleanup.policy": self.cleanup,
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(self.max_message_bytes),
        }
        if self.cleanup == "delete":
            settings["retention.ms"] = str(retention_ms)
        return settings


@cache
def all_topics() -> dict[str, Topic]:
    """Every topic by its unprefixed name, in the order of the file."""
    text = resources.files("schemas").joinpath("topics.toml").read_text(encoding="utf-8")
    return {
        name: Topic(name=name, **{**row, "readers": tuple(row["readers"])})
        for name, row in tomllib.loads(text).items()
    }
