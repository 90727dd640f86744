"""A synthetic workload: organizations with facts, and their usage, from a seed.

The same plan gives the same bytes, in each of the three streams, on every machine. Organizations,
members, websites and meters are skewed as in life: a few make most of the usage. Pure: time, seed
and the alias secret are arguments.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import Any, Final

from schemas import records
from schemas.codec import alias_hash, encode
from schemas.records import MICRO, UNASSIGNED

SOURCE: Final = "generator"
LEAD: Final = timedelta(days=1)
"""Facts take effect this long before the first usage, moves aside."""
MEMBERS_MAX, GROUPS_MAX, WEBSITES_MAX = 40, 6, 8
NAMED_SHARE: Final = 0.1
"""Share of members who also have an alias."""
MOVES_SHARE: Final = 0.2
"""Share of members who change their group in the middle of the window."""
DIMENSIONS: Final = ({"model": "small"}, {"model": "large"}, {"model": "large", "region": "eu"})
REPEAT_AFTER: Final = 500
"""A duplicate follows its original after at most so many events."""


@dataclass(frozen=True, slots=True)
class Meter:
    """How much one event of it counts; `decimals` makes quantities decimal strings."""

    name: str
    micro_per_million_units: int
    median_units: float
    decimals: int
    weight: float


METERS: Final = (
    Meter("ai.tokens", 2_000 * MICRO, 1_800, 0, 6),
    Meter("ai.requests", 5_000 * MICRO, 1, 0, 3),
    Meter("storage.gb_hours", 3_000 * MICRO, 2.5, 3, 1),
    Meter("seats.minutes", 400 * MICRO, 30, 0, 1),
)


@dataclass(frozen=True)
class Plan:
    """What to generate. `start` is aware; usage is spread evenly over `hours` from there on."""

    events: int
    organizations: int
    seed: int
    start: datetime
    hours: float = 24.0
    duplicates: float = 0.0
    """Probability that an event is sent again, unchanged."""

    def __post_init__(self) -> None:
        if self.events < 0 or self.organizations < 1 or self.hours <= 0:
            raise ValueError("needs events >= 0, organizations >= 1 and hours > 0")
        if not 0 <= self.duplicates <= 1:
            raise ValueError("duplicates is a probability between 0 and 1")

    @cached_property
    def directory(self) -> list["Tenant"]:
        return [_tenant(self.seed, number) for number in range(1, self.organizations + 1)]


@dataclass(frozen=True, slots=True)
class Tenant:
    """One organization; each member and website with its group."""

    organization_id: str
    groups: list[str]
    members: list[tuple[str, str]]
    websites: list[tuple[str, str]]
    aliases: dict[str, str]
    """Address by member."""
    moves: list[tuple[str, str]]


def usage(plan: Plan) -> Iterator[bytes]:
    """CloudEvents, one a line's worth, in the order of their times."""
    random = _random(plan.seed, "usage")
    recent: list[bytes] = []
    tenants, tenant_weights = plan.directory, _skew(len(plan.directory))
    meter_weights = list(accumulate(meter.weight for meter in METERS))
    step = timedelta(hours=plan.hours) / max(plan.events, 1)
    for number in range(plan.events):
        tenant = random.choices(tenants, cum_weights=tenant_weights)[0]
        meter = random.choices(METERS, cum_weights=meter_weights)[0]
        event = _event(random, tenant, meter, f"evt_{plan.seed}_{number}")
        event["time"] = _text(plan.start + step * number)
        line = encode(event)
        yield line
        if plan.duplicates:
            recent = [*recent[-REPEAT_AFTER:], line]
            if random.random() < plan.duplicates:
                yield random.choice(recent)


def memberships(plan: Plan, alias_secret: bytes = b"") -> Iterator[bytes]:
    """Facts of all organizations, versions gap-free from 1. No aliases without a secret."""
    before, middle = plan.start - LEAD, plan.start + timedelta(hours=plan.hours) / 2
    for tenant in plan.directory:
        facts: list[tuple[datetime, records.MembershipFact]] = [
            (before, fact) for fact in _standing_facts(tenant, alias_secret)
        ]
        facts += [
            (middle, records.MemberAssigned(member, group, "api")) for member, group in tenant.moves
        ]
        for version, (effective_at, fact) in enumerate(facts, 1):
            yield encode(
                records.MembershipRecord(
                    tenant.organization_id, version, before, effective_at, fact
                )
            )


def credits(plan: Plan) -> Iterator[bytes]:
    """Grants: website and group pools, monthly and one-time, some of which run out."""
    before = plan.start - LEAD
    for tenant in plan.directory:
        random = _random(plan.seed, f"credits:{tenant.organization_id}")
        pools: list[tuple[records.PoolKind, str]] = [
            *(("website", website) for website, _ in tenant.websites),
            *(("group", group) for group in tenant.groups),
        ]
        version = 0
        for pool_kind, pool_id in pools:
            for kind in _kinds(random):
                version += 1
                fact = records.Granted(
                    grant_id=f"grant_{version}",
                    pool_kind=pool_kind,
                    pool_id=pool_id,
                    kind=kind,
                    amount_micro=random.randrange(10, 2_000) * MICRO,
                    source="admin:generator",
                    expires_at=before + timedelta(days=30) if kind == "monthly" else None,
                )
                yield encode(
                    records.CreditRecord(tenant.organization_id, version, before, before, fact)
                )


def _tenant(seed: int, number: int) -> Tenant:
    random = _random(seed, f"tenant:{number}")
    groups = [f"group_{each}" for each in range(1, random.randint(1, GROUPS_MAX) + 1)]
    places = [*groups, UNASSIGNED]
    members = [
        (f"user_{each}", random.choice(places))
        for each in range(1, random.randint(2, MEMBERS_MAX) + 1)
    ]
    websites = [
        (f"web_{each}", random.choice(groups))
        for each in range(1, random.randint(1, WEBSITES_MAX) + 1)
    ]
    # The seed is part of the id, so another workload on the same broker has other organizations.
    organization_id = f"org_{seed}_{number}"
    return Tenant(
        organization_id,
        groups,
        members,
        websites,
        {
            member: f"{member}@{organization_id}.example"
            for member, _ in members
            if random.random() < NAMED_SHARE
        },
        [(member, random.choice(groups)) for member, _ in members if random.random() < MOVES_SHARE],
    )


def _standing_facts(tenant: Tenant, alias_secret: bytes) -> Iterator[records.MembershipFact]:
    yield records.OrganizationCreated()
    for meter in METERS:
        yield records.PriceSet(meter.name, meter.micro_per_million_units, "default")
    for group in tenant.groups:
        yield records.GroupCreated(group)
    for website, group in tenant.websites:
        yield records.WebsiteAssigned(website, group)
    for member, group in tenant.members:
        yield records.MemberAssigned(member, group, "scim")
    if alias_secret:
        for member, address in tenant.aliases.items():
            yield records.MemberAlias(member, alias_hash(alias_secret, address))


def _event(random: Random, tenant: Tenant, meter: Meter, event_id: str) -> dict[str, Any]:
    member = random.choices(tenant.members, cum_weights=_skew(len(tenant.members)))[0][0]
    data: dict[str, Any] = {"quantity": _quantity(random, meter)}
    if random.random() < 0.7:
        websites = tenant.websites
        data["website_id"] = random.choices(websites, cum_weights=_skew(len(websites)))[0][0]
    if meter.name.startswith("ai."):
        data["dimensions"] = random.choice(DIMENSIONS)
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": meter.name,
        "subject": member,
        "organizationid": tenant.organization_id,
        "data": data,
    }


def _quantity(random: Random, meter: Meter) -> int | str:
    units = meter.median_units * random.lognormvariate(0, 1)
    if meter.decimals:
        return f"{units:.{meter.decimals}f}"
    return max(1, round(units))


def _kinds(random: Random) -> list[records.GrantKind]:
    both: list[records.GrantKind] = ["monthly", "one_time"]
    return [kind for kind in both if random.random() < 0.6]


_SKEWS: dict[int, list[float]] = {}


def _skew(count: int) -> list[float]:
    """Cumulated weights 1, 1/2, 1/3 …"""
    if count not in _SKEWS:
        _SKEWS[count] = list(accumulate(1 / rank for rank in range(1, count + 1)))
    return _SKEWS[count]


def _random(seed: int, purpose: str) -> Random:
    # Each purpose has a sequence of its own, so that more events leave the facts as they are.
    return Random(f"{seed}:{purpose}")  # noqa: S311 - a workload, no secrets


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
