"""The organizations of a run: what they are at first, and how they change in mid-stream.

A tenant remembers what it published only to say something sensible next; what becomes of it, the
model decides from the topics. Everything comes from one seeded random generator and the clock
given.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Final

from cli.verification.messages import Message
from schemas import records
from schemas.codec import alias_hash, encode
from schemas.topics import CREDITS, MEMBERSHIPS

METERS: Final = {
    "ai.tokens": 3_000_000,
    "ai.requests": 700_000_001,
    "storage.gb": 41_500_003,
    "rare": 5_000_000_000,
    "dear": 2**62,
}
"""Micro-credits per million units. `rare` has a price since an hour only, `dear` ones overflow."""
LONG_AGO: Final = timedelta(days=40)
SHORT_LIFE_S: Final = (4, 25)
"""How soon a grant of the run may expire, so that remainders are forfeited while it runs."""
ALIAS_SECRET: Final = "verification-only-secret"  # noqa: S105 - of a pipeline that lives minutes


@dataclass
class FactLog:
    """Publishes one topic's facts of one organization with gap-free versions."""

    organization_id: str
    topic: str
    version: int = 0
    last: Message | None = None

    def publish(self, fact: object, effective_at: datetime, now: datetime) -> Message:
        self.version += 1
        self.last = self.at_version(self.version, fact, effective_at, now)
        return self.last

    def at_version(
        self, version: int, fact: object, effective_at: datetime, now: datetime
    ) -> Message:
        kind = records.MembershipRecord if self.topic == MEMBERSHIPS else records.CreditRecord
        record = kind(self.organization_id, version, now, effective_at, fact)  # type: ignore[arg-type]
        return Message(self.topic, self.organization_id.encode(), encode(record))


@dataclass
class Tenant:
    """One organization with its groups, members, websites, aliases and grants."""

    organization_id: str
    random: Random
    groups: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    websites: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    grants: list[str] = field(default_factory=list)
    serial: int = 0
    last_expiry: datetime | None = None
    doomed: tuple[str, datetime] | None = None
    """A group that will be deleted, and in which burst it was made."""

    def __post_init__(self) -> None:
        self.memberships = FactLog(self.organization_id, MEMBERSHIPS)
        self.credits = FactLog(self.organization_id, CREDITS)

    def opening(self, now: datetime) -> Iterator[Message]:
        """What is known before the first usage."""
        before, say = now - LONG_AGO, self.memberships.publish
        funding = self.random.choice(("member", "website"))
        yield say(records.OrganizationCreated(funding), before, now)  # type: ignore[arg-type]
        for meter, price in METERS.items():
            since = now - timedelta(hours=1) if meter == "rare" else before
            yield say(records.PriceSet(meter, price, "default"), since, now)
        for _ in range(3):
            yield say(records.GroupCreated(self._new("group", self.groups)), before, now)
        for _ in range(3):
            website = self._new("web", self.websites)
            yield say(
                records.WebsiteAssigned(website, self.random.choice(self.groups)), before, now
            )
        for _ in range(8):
            yield self._assign(self._new("user", self.members), before, now)
        for _ in range(2):
            yield self._alias(before, now)
        for _ in range(8):
            yield self._grant(before, now)

    def change(self, now: datetime) -> Iterator[Message]:
        """One thing that happens in mid-stream: a record or several."""
        happening = self.random.choices(
            (
                self._moves,
                self._settings,
                self._price,
                self._late_or_early,
                self._delete_group,
                self._credit,
                self._gap,
                self._conflict,
                self._repeat,
            ),
            weights=(6, 2, 3, 2, 6, 10, 1, 1, 1),
        )[0]
        yield from happening(now)

    def price(self, meter: str, now: datetime) -> Message:
        """A price that should have been there long ago."""
        fact = records.PriceSet(meter, 1_000_000, "default")
        return self.memberships.publish(fact, now - LONG_AGO, now)

    def _new(self, kind: str, names: list[str]) -> str:
        self.serial += 1
        name = f"{kind}_{self.serial}"
        names.append(name)
        return name

    def _assign(self, member: str, effective_at: datetime, now: datetime) -> Message:
        group = self.random.choice([*self.groups, records.UNASSIGNED])
        fact = records.MemberAssigned(member, group, "api")
        return self.memberships.publish(fact, effective_at, now)

    def _alias(self, effective_at: datetime, now: datetime) -> Message:
        self.serial += 1
        address = f"Person{self.serial}@{self.organization_id}.example"
        self.addresses.append(address)
        hashed = alias_hash(ALIAS_SECRET.encode(), address)
        fact = records.MemberAlias(self.random.choice(self.members), hashed)
        return self.memberships.publish(fact, effective_at, now)

    def _grant(self, effective_at: datetime, now: datetime) -> Message:
        kind: records.GrantKind = self.random.choice(("monthly", "one_time"))
        expires_at = None
        if kind == "monthly" or self.random.random() < 0.3:
            lasts = timedelta(days=30)
            if self.random.random() < 0.5:
                lasts = timedelta(seconds=self.random.uniform(*SHORT_LIFE_S))
                self.last_expiry = max(self.last_expiry or now, now + lasts)
            expires_at = now + lasts
        pool_kind: records.PoolKind = self.random.choice(("website", "group"))
        pool_id = self.random.choice(self.websites if pool_kind == "website" else self.groups)
        amount_micro = int(10 ** self.random.uniform(5, 10))
        fact = records.Granted(
            self._new("grant", self.grants),
            pool_kind,
            pool_id,
            kind,
            amount_micro,
            "admin:verification",
            expires_at,
        )
        return self.credits.publish(fact, effective_at, now)

    def _moves(self, now: datetime) -> Iterator[Message]:
        for _ in range(self.random.randint(1, 4)):
            yield self._assign(self.random.choice(self.members), now, now)
        if self.random.random() < 0.3:
            fact = records.MemberRemoved(self.random.choice(self.members))
            yield self.memberships.publish(fact, now, now)
        if self.random.random() < 0.3:
            yield self._alias(now, now)
        if self.random.random() < 0.3:
            website, group = self.random.choice(self.websites), self.random.choice(self.groups)
            yield self.memberships.publish(records.WebsiteAssigned(website, group), now, now)

    def _settings(self, now: datetime) -> Iterator[Message]:
        fact = records.OrganizationSettings(
            self.random.choice(("member", "website")),
            credit_price_micro=self.random.randrange(5_000, 20_000),
        )
        yield self.memberships.publish(fact, now, now)

    def _price(self, now: datetime) -> Iterator[Message]:
        meter = self.random.choice(("ai.tokens", "ai.requests", "storage.gb"))
        fact = records.PriceSet(meter, self.random.randrange(10**6, 10**9), "organization")
        yield self.memberships.publish(fact, now, now)

    def _late_or_early(self, now: datetime) -> Iterator[Message]:
        at = now + timedelta(seconds=self.random.uniform(-600, 5))
        yield self._assign(self.random.choice(self.members), at, now)

    def _delete_group(self, now: datetime) -> Iterator[Message]:
        """First a group is made and given credits, so that its closing shows in the ledger; in a
        later burst it is deleted, at once or ahead of time."""
        if self.doomed is None or self.doomed[1] == now:
            yield from self._doom(now)
            return
        group, _ = self.doomed
        self.doomed = None
        at = now + timedelta(seconds=self.random.choice((-60, 0, 3)))
        self.last_expiry = max(self.last_expiry or now, at)
        yield self.memberships.publish(records.GroupDeleted(group), at, now)
        # Refused: the group is gone by then. Its version is consumed all the same.
        late = records.MemberAssigned(self.random.choice(self.members), group, "api")
        yield self.memberships.publish(late, at + timedelta(seconds=1), now)

    def _doom(self, now: datetime) -> Iterator[Message]:
        if self.doomed is not None:
            return
        group = self._new("group", [])
        self.doomed = (group, now)
        yield self.memberships.publish(records.GroupCreated(group), now - LONG_AGO, now)
        assigned = records.MemberAssigned(self.random.choice(self.members), group, "csv")
        yield self.memberships.publish(assigned, now - timedelta(minutes=5), now)
        grant = records.Granted(
            self._new("grant", []), "group", group, "one_time", 10**15, "partner:p1"
        )
        yield self.credits.publish(grant, now - LONG_AGO, now)

    def _credit(self, now: datetime) -> Iterator[Message]:
        what = self.random.random()
        if what < 0.6:
            yield self._grant(now - timedelta(hours=self.random.choice((0, 1))), now)
        elif what < 0.8:
            amount_micro = int(10 ** self.random.uniform(4, 8))
            revoked = records.Revoked(self.random.choice(self.grants), amount_micro, "refund")
            yield self.credits.publish(revoked, now, now)
        else:
            amount_micro = self.random.choice((-1, 1)) * int(10 ** self.random.uniform(4, 8))
            pool_kind: records.PoolKind = self.random.choice(("website", "group"))
            pool_id = self.random.choice(self.websites if pool_kind == "website" else self.groups)
            adjusted = records.Adjusted(pool_kind, pool_id, amount_micro, "by hand")
            yield self.credits.publish(adjusted, now, now)

    def _gap(self, now: datetime) -> Iterator[Message]:
        """The second of two facts first: refused, and accepted when it comes after the other."""
        first = self._grant(now, now)
        second = self._grant(now, now)
        yield from (second, first, second)

    def _conflict(self, now: datetime) -> Iterator[Message]:
        """An applied version with other content stops the topic until it is said right again."""
        log = self.memberships
        right = log.last
        assert right is not None
        wrong = log.at_version(log.version, records.GroupCreated("group_wrong"), now, now)
        waits = self._assign(self.random.choice(self.members), now, now)
        yield from (wrong, waits, right, waits)

    def _repeat(self, now: datetime) -> Iterator[Message]:
        """The same fact again, recorded later: ignored."""
        last = self.memberships.last
        assert last is not None
        yield last


def make_cast(count: int, seed: int) -> list[Tenant]:
    return [
        Tenant(f"org_{number}", Random(f"{seed}:tenant:{number}"))  # noqa: S311 - a workload
        for number in range(1, count + 1)
    ]
