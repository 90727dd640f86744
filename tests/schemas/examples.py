"""The example messages of the contract, run through the decisions in a small known world."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from schemas import records
from schemas.topics import CREDITS, MEMBERSHIPS, USAGE
from streams.decisions.facts import FactOutcome
from streams.decisions.outcomes import Rejected
from tests.decisions.worker import ORG, Worker, alias_hash

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BEFORE = datetime(2026, 10, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Example:
    """A file: what it is about, and the record. `text` is for values that are no JSON."""

    topic: str
    kind: str
    name: str
    about: str
    key: str
    value: Any
    text: str | None
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def raw(self) -> bytes | None:
        if self.text is not None:
            return self.text.encode()
        return None if self.value is None else json.dumps(self.value).encode()


def examples(topic: str) -> Iterator[Example]:
    """All examples of a topic, in the order of their names."""
    for path in sorted((EXAMPLES / topic).glob("*/*.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        yield Example(
            topic,
            path.parent.name,
            path.stem,
            said.pop("about"),
            said.pop("key"),
            said.pop("value", None),
            said.pop("text", None),
            said.pop("headers", {}),
        )
        assert not said, f"{path} says more than an example does: {sorted(said)}"


def world() -> Worker:
    """org_7 with groups, members, an alias, a website, prices, credits and a debt."""
    worker = Worker(now=NOW)
    for fact in (
        records.OrganizationCreated(),
        records.GroupCreated("group_a"),
        records.GroupCreated("group_b"),
        records.MemberAssigned("user_42", "group_a", "scim"),
        records.MemberAssigned("user_44", "group_b", "scim"),
        records.MemberAlias("user_42", alias_hash("ada@example.com")),
        records.WebsiteAssigned("web_3", "group_b"),
        records.PriceSet("ai.tokens", 2_000_000, "default"),
        records.PriceSet("ai.tokens", 1_500_001),
        records.PriceSet("seats.minutes", 250_000_000, "default"),
        records.Granted("grant_group", "group", "group_a", "one_time", 50_000, "admin:ada"),
        records.Granted("grant_web", "website", "web_3", "one_time", 1_000, "admin:ada"),
        records.Adjusted("group", "group_b", -60, "granted twice"),
    ):
        assert worker.publish(fact, BEFORE).applied is not None
    return worker


@dataclass(frozen=True)
class Result:
    """What came of an example: records to write, by topic, or a refusal."""

    outputs: dict[str, list[Any]]
    rejected: Rejected | None = None
    ignored: bool = False

    def as_json(self) -> dict[str, Any]:
        if self.rejected is not None:
            return {"reason": self.rejected.reason.value, "detail": self.rejected.detail}
        if self.ignored:
            return {"ignored": True}
        written: dict[str, Any] = msgspec.to_builtins(self.outputs)
        return written


def run(example: Example) -> Result:
    """Sends the example into a fresh world."""
    worker = world()
    key = example.key.encode()
    if example.topic == USAGE:
        headers = [(name, text.encode()) for name, text in example.headers.items()]
        row = worker.receive(example.raw, key, headers)
        if isinstance(row, Rejected):
            return Result({}, row)
        assert row is not None
        pool = worker.pool("group", "group_a")
        return Result({"usage-rated": [row], "balances": [pool]})
    outcome: FactOutcome = worker.receive_fact(example.topic, example.raw, key)
    outputs: dict[str, list[Any]] = {"facts-applied": [outcome.applied], "ledger": outcome.postings}
    if outcome.applied is None:
        return Result({}, outcome.rejected, outcome.ignored)
    return Result(outputs)


INPUT_TOPICS = (USAGE, MEMBERSHIPS, CREDITS)
__all__ = ["INPUT_TOPICS", "NOW", "ORG", "Example", "Result", "examples", "run", "world"]
