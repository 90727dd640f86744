"""The workload, seeded: facts, usage events, ids seen before, and what all of it must come to.

The expectation is reckoned here from the plan alone, with nothing of `streams`: every engine is
checked against it. In one partition events come in the order in which they are generated.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from aiokafka.partitioner import murmur2

from schemas import records
from schemas.codec import encode
from streams.decisions.events import Limits, UsageEvent
from streams.decisions.intake import Intake

MEMBERS: Final = 10
GROUPS: Final = 3
WEBSITES: Final = 4
FUNDED_WEBSITES: Final = 2
"""Of the websites the first so many have credits; a fifth of the events is for no website."""
METERS: Final = (("ai.tokens", 1_000_000), ("ai.images", 2_345_678), ("seats.minutes", 777_777))
"""Meters and micro-credits per million units."""
QUANTITY_MAX: Final = 5_000
SKEW: Final = 1.2
HEAD: Final = 10
"""Organization = floor(HEAD x Pareto(SKEW)): the largest has a tenth of all usage."""
REPEATED_SHARE: Final = 0.003
OLD_SHARE: Final = 0.001
"""Events that were sent before: in this run, and among the ids that were seen before it."""
OLD_EVENTS: Final = 1_000
OLD_NUMBER: Final = 1 << 31
WEBSITE_COVER: Final = 0.5
GROUP_COVER: Final = 0.7
"""Share of the usage of a pool that its credits are made to cover."""
CHUNK: Final = 8_192

_EVENT: Final = (
    b'{"specversion":"1.0","id":"%08x-7c1b-4d8e-9f00-%012x","source":"editor/eu-%d",'
    b'"type":"%s","time":"%s.%03dZ","subject":"user_%d","organizationid":"%s",'
    b'"datacontenttype":"application/json","data":{"quantity":%d%s,'
    b'"dimensions":{"model":"%s","region":"eu-west-%d"}}}'
)
_MODELS: Final = (b"large", b"medium", b"small")


@dataclass(frozen=True, slots=True)
class Message:
    """A record to produce; `number` is also in its id (the first eight hex digits)."""

    number: int
    partition: int
    key: bytes
    value: bytes


@dataclass(slots=True)
class Totals:
    """What the events of one organization come to, in micro-credits."""

    rated: int = 0
    cost: int = 0
    website: int = 0
    group: int = 0
    overage: int = 0


@dataclass(slots=True)
class Expected:
    """What must have come out once everything generated so far is processed."""

    totals: dict[str, Totals] = field(default_factory=dict)
    balances: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """By organization, pool kind and pool id; only pools with credits."""
    rated: int = 0


class Workload:
    """`planned_events` sizes the credits, so that website debits, group debits and overage occur.

    `repeating`: a few events come again, or are among the ids that were seen before."""

    def __init__(
        self,
        *,
        seed: int,
        planned_events: int,
        organizations: int,
        partitions: int,
        at: datetime,
        repeating: bool = True,
    ) -> None:
        self.seed = seed
        self.partitions = partitions
        self.expected = Expected()
        self.generated = [0] * partitions
        """Records generated so far, by partition."""
        self._at = at.replace(microsecond=0)
        self._before = self._at - timedelta(days=1)
        self._ids = [f"org_{number:06d}" for number in range(organizations)]
        self._keys = [name.encode() for name in self._ids]
        self._partition_of = [(murmur2(key) & 0x7FFFFFFF) % partitions for key in self._keys]
        self._random = np.random.default_rng(seed)
        self._next = 0
        self._repeated_share = REPEATED_SHARE if repeating else 0.0
        self._old_share = OLD_SHARE if repeating else 0.0
        self._second = (-1, b"")
        self._shares = _shares(organizations)
        self._planned = planned_events
        self._give_credits()
        self.old = self._old_events()

    # ---- facts

    def memberships(self) -> Iterator[Message]:
        """Facts of all organizations, versions gap-free from 1."""
        facts: list[records.MembershipFact] = [records.OrganizationCreated()]
        facts += [records.PriceSet(meter, price, "default") for meter, price in METERS]
        facts += [records.GroupCreated(f"group_{number}") for number in range(GROUPS)]
        facts += [
            records.MemberAssigned(f"user_{number}", f"group_{number % GROUPS}", "scim")
            for number in range(MEMBERS)
        ]
        facts += [
            records.WebsiteAssigned(f"web_{number}", f"group_{number % GROUPS}")
            for number in range(WEBSITES)
        ]
        for place, name in enumerate(self._ids):
            for version, fact in enumerate(facts, 1):
                record = records.MembershipRecord(name, version, self._before, self._before, fact)
                yield self._fact(place, record)

    def credits(self) -> Iterator[Message]:
        """A monthly and a one-time grant for every pool that has credits."""
        ends = self._at + timedelta(days=60)
        versions = dict.fromkeys(self._ids, 0)
        places = {name: place for place, name in enumerate(self._ids)}
        for (name, kind, pool_id), amount in self._granted.items():
            monthly = amount // 3
            for grant_kind, part in (("monthly", monthly), ("one_time", amount - monthly)):
                if not part:
                    continue
                versions[name] += 1
                grant = records.Granted(
                    f"grant_{versions[name]}",
                    kind,  # type: ignore[arg-type]
                    pool_id,
                    grant_kind,  # type: ignore[arg-type]
                    part,
                    "admin:bench",
                    ends if grant_kind == "monthly" else None,
                )
                record = records.CreditRecord(
                    name, versions[name], self._before, self._before, grant
                )
                yield self._fact(places[name], record)

    def _fact(self, place: int, record: Any) -> Message:
        return Message(0, self._partition_of[place], self._keys[place], encode(record))

    def _give_credits(self) -> None:
        """Credits in proportion to the usage that is to come."""
        mean_micro = QUANTITY_MAX / 2 * sum(price for _, price in METERS) / len(METERS) / 1e6
        for name, share in zip(self._ids, self._shares, strict=True):
            usage_micro = share * self._planned * mean_micro
            website = usage_micro / (WEBSITES + 1)
            funded = website * WEBSITE_COVER
            group = (usage_micro - FUNDED_WEBSITES * funded) / GROUPS
            for number in range(FUNDED_WEBSITES):
                self._grant(name, "website", f"web_{number}", int(funded))
            for number in range(GROUPS):
                self._grant(name, "group", f"group_{number}", int(group * GROUP_COVER))
        self._granted = dict(self.expected.balances)

    def _grant(self, name: str, kind: str, pool_id: str, amount_micro: int) -> None:
        if amount_micro:
            self.expected.balances[(name, kind, pool_id)] = amount_micro

    # ---- usage

    def events(self, count: int) -> Iterator[Message]:
        """The next `count` records (repetitions among them); what they cost is booked."""
        generated = 0
        while generated < count:
            size = min(CHUNK, count - generated)
            yield from self._chunk(size)
            generated += size

    def _chunk(self, size: int) -> Iterator[Message]:
        columns = self._draw(size)
        luck = self._random.random(size).tolist()
        old = self._random.integers(0, OLD_EVENTS, size).tolist()
        old_share, repeated_share = self._old_share, self._repeated_share
        recent: Message | None = None
        for chance, which, drawn in zip(luck, old, columns, strict=True):
            if chance < old_share:
                message = self.old[which]
            elif recent is not None and chance < old_share + repeated_share:
                message = recent
            else:
                message = recent = self._message(self._next, drawn)
                self._book(drawn)
                self._next += 1
            self.generated[message.partition] += 1
            yield message

    def _draw(self, size: int) -> list[tuple[int, ...]]:
        random = self._random
        place = (HEAD * (random.pareto(SKEW, size) + 1)).astype(np.int64) - HEAD
        columns = (
            place % len(self._ids),
            random.integers(0, MEMBERS, size),
            random.integers(0, WEBSITES + 1, size),
            random.integers(0, len(METERS), size),
            random.integers(1, QUANTITY_MAX, size),
            random.integers(0, 1 << 48, size),
        )
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def _message(self, number: int, drawn: tuple[int, ...]) -> Message:
        place, member, website, meter, quantity, noise = drawn
        value = _EVENT % (
            number,
            noise,
            noise % 4,
            METERS[meter][0].encode(),
            self._second_of(number),
            number % 1_000,
            member,
            self._keys[place],
            quantity,
            b',"website_id":"web_%d"' % website if website < WEBSITES else b"",
            _MODELS[noise % 3],
            noise % 7,
        )
        return Message(number, self._partition_of[place], self._keys[place], value)

    def _second_of(self, number: int) -> bytes:
        """A thousand events of one second follow each other."""
        second = (number & (OLD_NUMBER - 1)) // 1_000
        if second != self._second[0]:
            at = self._at + timedelta(seconds=second)
            self._second = (second, at.isoformat()[:19].encode())
        return self._second[1]

    def _book(self, drawn: tuple[int, ...]) -> None:
        place, member, website, meter, quantity, _ = drawn
        name = self._ids[place]
        totals = self.expected.totals.get(name)
        if totals is None:
            totals = self.expected.totals[name] = Totals()
        cost = (quantity * METERS[meter][1] + 500_000) // 1_000_000
        balances = self.expected.balances
        from_website = 0
        if website < WEBSITES:
            at = (name, "website", f"web_{website}")
            left = balances.get(at, 0)
            if left:
                from_website = min(cost, left)
                balances[at] = left - from_website
        at = (name, "group", f"group_{member % GROUPS}")
        from_group = min(cost - from_website, balances.get(at, 0))
        if from_group:
            balances[at] -= from_group
        totals.rated += 1
        totals.cost += cost
        totals.website += from_website
        totals.group += from_group
        totals.overage += cost - from_website - from_group
        self.expected.rated += 1

    # ---- ids seen before

    def _old_events(self) -> list[Message]:
        return [
            self._message(OLD_NUMBER + number, drawn)
            for number, drawn in enumerate(self._draw(OLD_EVENTS))
        ]

    def seen_rows(self, partition: int, count: int) -> npt.NDArray[np.uint64]:
        """Rows (id, id, content) of so many ids seen before in the partition: noise, and the old
        events that will be sent again."""
        rows = random_rows(self.seed, partition, count)
        intake = Intake(Limits())
        old = []
        for message in self.old:
            if message.partition == partition:
                event = intake.parse(message.value, message.key, (), self._at)
                assert isinstance(event, UsageEvent), event
                old.append(event.identity + event.content.to_bytes(8, "little"))
        known = np.frombuffer(b"".join(old), np.uint64).reshape(-1, 3)
        return np.concatenate([known, rows])


def random_rows(seed: int, partition: int, count: int) -> npt.NDArray[np.uint64]:
    """Ids that no event will have; no content is 0."""
    random = np.random.default_rng((seed, partition))
    return random.integers(1, 1 << 63, (count, 3), dtype=np.uint64)


def _shares(organizations: int) -> list[float]:
    """The share of all usage that each organization will have."""
    edges = (HEAD + np.arange(organizations + 1)) / HEAD
    beyond = edges**-SKEW
    shares: list[float] = (beyond[:-1] - beyond[1:]).tolist()
    return shares


def now_utc() -> datetime:
    return datetime.now(UTC)
