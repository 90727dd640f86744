"""The model's books: every fact and movement of an organization, and sums taken from them."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cli.verification.fact_reading import Fact
from schemas.records import UNASSIGNED

PoolId = tuple[str, str]
"""Kind and id."""

_FOREVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Movement:
    """A leg: what an account of a pool, or its other side, gained (or lost)."""

    entry_id: str
    account: str
    pool: PoolId
    grant_id: str
    amount_micro: int


@dataclass
class GivenGrant:
    """A grant and all that ever happened to it."""

    grant_id: str
    pool: PoolId
    monthly: bool
    effective_at: datetime
    expires_at: datetime | None
    amount_micro: int
    revoked_micro: int = 0
    left_micro: int = 0
    spent_micro: int = 0
    """By usage, or to repay what usage had spent before."""
    owed_micro: int = 0
    """Made a debt by revocations."""
    lapsed_micro: int = 0
    """Taken by the clock after its expiry."""

    def burns(self) -> tuple[int, datetime, datetime, str]:
        expires_at = self.expires_at or _FOREVER
        return 0 if self.monthly else 1, expires_at, self.effective_at, self.grant_id

    def eligible(self, at: datetime) -> bool:
        return self.effective_at <= at and (self.expires_at is None or at < self.expires_at)


@dataclass
class Organization:
    """Everything ever said about an organization, and every movement of its credits."""

    consumed: dict[tuple[str, int], tuple[Any, ...]] = field(default_factory=dict)
    version: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    stopped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    facts_about: dict[tuple[str, str], list[Fact]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """Applied facts by what they are about."""
    grants: dict[str, GivenGrant] = field(default_factory=dict)
    by_pool: dict[PoolId, list[GivenGrant]] = field(default_factory=lambda: defaultdict(list))
    debt: dict[PoolId, int] = field(default_factory=lambda: defaultdict(int))
    closed: set[str] = field(default_factory=set)
    movements: list[Movement] = field(default_factory=list)

    def as_of(self, kind: str, name: str, at: datetime, **having: Any) -> Fact | None:
        facts = [
            fact
            for fact in self.facts_about.get((kind, name), ())
            if fact.effective_at <= at and all(fact[k] == v for k, v in having.items())
        ]
        return max(facts, key=lambda fact: (fact.effective_at, fact.version), default=None)

    def balance(self, pool: PoolId) -> int:
        return sum(grant.left_micro for grant in self.by_pool[pool]) - self.debt[pool]

    def settings(self, at: datetime) -> Fact:
        """Those by then; before any, the first."""
        facts = self.facts_about["settings", ""]
        earliest = min(facts, key=lambda fact: (fact.effective_at, fact.version))
        return self.as_of("settings", "", at) or earliest

    def deleted_at(self, group_id: str) -> datetime | None:
        deletions = self.facts_about.get(("deletion", group_id))
        return deletions[0].effective_at if deletions else None

    def group(self, kind: str, name: str, at: datetime) -> tuple[str, int]:
        """The group of a member or website as of a time, and the version that says so."""
        fact = self.as_of(kind, name, at)
        if fact is None:
            return UNASSIGNED, 0
        group_id = fact.says.get("group_id", UNASSIGNED)
        deleted_at = self.deleted_at(group_id)
        is_deleted = deleted_at is not None and deleted_at <= at
        return (UNASSIGNED if is_deleted else group_id), fact.version

    def move(self, entry_id: str, legs: list[tuple[str, str, int]], pool: PoolId) -> list[Movement]:
        movements = [
            Movement(entry_id, a, pool, grant, amount) for a, grant, amount in legs if amount
        ]
        for movement in movements:
            if movement.account == "available":
                grant = self.grants[movement.grant_id]
                grant.left_micro += movement.amount_micro
                if entry_id == "usage":
                    grant.spent_micro -= movement.amount_micro
            elif movement.account == "debt":
                self.debt[pool] -= movement.amount_micro
        self.movements += movements
        return movements

    def spend(self, pool: PoolId, amount_micro: int, at: datetime) -> list[tuple[str, int]]:
        """What each grant would pay."""
        paid = []
        for grant in sorted(self.by_pool[pool], key=GivenGrant.burns):
            part = min(amount_micro, grant.left_micro) if grant.eligible(at) else 0
            if part > 0:
                paid.append((grant.grant_id, part))
                amount_micro -= part
        return paid
