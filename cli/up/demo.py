"""The demo's two organizations: what is seeded of them, and their usage, the same at every start.

Pure: the time of the first start is an argument, and kept by the caller, so that a later start
finds what is there already by its id. Only monthly grants of new months are added.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from api.rules.credits import NewGrant
from api.rules.members import NewMember
from api.rules.prices import NewPrice
from api.seed import Seed
from cli.up.demo_state import DEMO_ORGANIZATION
from schemas.records import MICRO, UNASSIGNED, PoolKind

PAST_DAYS: Final = 7
"""Usage of the days before the first start, so that the first report has something to say."""
PAST_EVENTS: Final = 400
KNOWN_SINCE: Final = timedelta(days=40)
PAST_SOURCE: Final = "demo/past"
LIVE_SOURCE: Final = "demo/live"
PRICES: Final = {
    "ai.tokens": 2_000 * MICRO,  # 2 credits for 1,000 tokens
    "pages.written": 5 * MICRO * MICRO,  # 5 credits a page
    "storage.gb_hours": 2 * MICRO * MICRO,  # 2 credits a gigabyte-hour
}
"""Micro-credits per million units."""
UNPRICED_METER: Final = "images.made"
"""A few events of it become dead letters, for `dead-letters list` to show."""


@dataclass(frozen=True, slots=True)
class Person:
    member_id: str
    name: str
    group_id: str
    weight: int
    """How much of the usage is theirs."""


@dataclass(frozen=True, slots=True)
class Site:
    website_id: str
    name: str
    group_id: str
    monthly_credits: int
    one_time_credits: int


@dataclass(frozen=True, slots=True)
class Company:
    organization_id: str
    name: str
    groups: dict[str, tuple[str, int, int]]
    """Name, monthly and one-time credits by group id."""
    people: tuple[Person, ...]
    sites: tuple[Site, ...]


COMPANIES: Final = (
    Company(
        DEMO_ORGANIZATION,
        "Acme Publishing",
        {
            "group_editors": ("Editors", 4_000, 1_000),
            "group_marketing": ("Marketing", 600, 0),
            "group_research": ("Research", 0, 2_500),
        },
        (
            Person("user_ada", "Ada Bright", "group_editors", 6),
            Person("user_ben", "Ben Okoro", "group_editors", 3),
            Person("user_cleo", "Cleo Marsh", "group_marketing", 4),
            Person("user_dan", "Dan Iversen", "group_research", 2),
            Person("user_eve", "Eve Lindqvist", UNASSIGNED, 1),
        ),
        (
            Site("web_magazine", "Acme Magazine", "group_editors", 500, 250),
            Site("web_shop", "Acme Shop", "group_marketing", 100, 0),
        ),
    ),
    Company(
        "org_globex",
        "Globex Travel",
        {
            "group_support": ("Support", 2_000, 0),
            "group_product": ("Product", 0, 5_000),
        },
        (
            Person("user_fay", "Fay Moreau", "group_support", 5),
            Person("user_gus", "Gus Haddad", "group_product", 3),
            Person("user_bot", "Booking robot", "group_product", 4),
        ),
        (
            Site("web_trips", "Globex Trips", "group_product", 300, 0),
            Site("web_help", "Globex Help", "group_support", 0, 400),
        ),
    ),
)


def seed(company: Company, started_at: datetime, now: datetime) -> Seed:
    """Everything the organization has at the first start, made through the control plane's rules.

    It is to be sown as of `since(started_at)`. Its keys are made apart.
    """
    return Seed(
        company.organization_id,
        company.name,
        groups={group: name for group, (name, _, _) in company.groups.items()},
        members=[_member(company, person) for person in company.people],
        places={
            person.member_id: person.group_id
            for person in company.people
            if person.group_id != UNASSIGNED
        },
        websites={site.website_id: (site.name, site.group_id) for site in company.sites},
        prices=[NewPrice(meter, price) for meter, price in PRICES.items()],
        grants=list(grants(company, started_at, now)),
        keys=(),
    )


def since(started_at: datetime) -> datetime:
    """From when on the organizations are there: before their first usage and grant."""
    return started_at - KNOWN_SINCE


def grants(company: Company, started_at: datetime, now: datetime) -> Iterator[NewGrant]:
    """One-time grants, then the monthly ones of every month from the first usage to the next.

    A grant has the same id at every call.
    """
    past = started_at - timedelta(days=PAST_DAYS)
    for pool_kind, pool_id, _, one_time in _pools(company):
        if one_time:
            yield _grant(f"start_{pool_id}", pool_kind, pool_id, one_time, past)
    month = _month_start(past)
    while month <= now + timedelta(days=31):
        following = _month_start(month + timedelta(days=32))
        for pool_kind, pool_id, monthly, _ in _pools(company):
            if monthly:
                grant_id = f"monthly_{month:%Y_%m}_{pool_id}"
                yield _grant(grant_id, pool_kind, pool_id, monthly, month, following)
        month = following


def past_usage(company: Company, started_at: datetime) -> Iterator[dict[str, Any]]:
    """CloudEvents of the last days; the same ids at every call, so that a repetition is free."""
    random = Random(company.organization_id)  # noqa: S311 - a demo, no secrets
    start = started_at - timedelta(days=PAST_DAYS)
    step = timedelta(days=PAST_DAYS) / PAST_EVENTS
    for number in range(PAST_EVENTS):
        event = event_of(company, random, f"past_{number}", PAST_SOURCE, start + step * number)
        if number % 100 == 50:
            event["type"] = UNPRICED_METER
        yield event


def event_of(
    company: Company, random: Random, event_id: str, source: str, at: datetime
) -> dict[str, Any]:
    """One CloudEvent of a person of the company, some by their address."""
    weights = [person.weight for person in company.people]
    person = random.choices(company.people, weights)[0]
    by_address = random.random() < 0.2
    meter = random.choices(list(PRICES), (6, 2, 2))[0]
    data: dict[str, Any] = {"quantity": _quantity(random, meter)}
    if random.random() < 0.6:
        data["website_id"] = random.choice(company.sites).website_id
    if meter == "ai.tokens":
        data["dimensions"] = {"model": random.choice(("small", "large"))}
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": meter,
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "subject": address_of(company, person) if by_address else person.member_id,
        "organizationid": company.organization_id,
        "data": data,
    }


def address_of(company: Company, person: Person) -> str:
    local = person.name.split()[0].lower()
    return f"{local}@{company.organization_id.removeprefix('org_')}.example"


def _member(company: Company, person: Person) -> NewMember:
    return NewMember(
        address_of(company, person),
        person.name,
        kind="service_account" if person.member_id == "user_bot" else "person",
        member_id=person.member_id,
    )


def _pools(company: Company) -> Iterator[tuple[PoolKind, str, int, int]]:
    """Kind, id, monthly and one-time credits."""
    for site in company.sites:
        yield "website", site.website_id, site.monthly_credits, site.one_time_credits
    for group, (_, monthly, one_time) in company.groups.items():
        yield "group", group, monthly, one_time


def _grant(
    grant_id: str,
    pool_kind: PoolKind,
    pool_id: str,
    amount_credits: int,
    effective_at: datetime,
    expires_at: datetime | None = None,
) -> NewGrant:
    return NewGrant(
        pool_kind,
        pool_id,
        kind="one_time" if expires_at is None else "monthly",
        amount_micro=amount_credits * MICRO,
        source="admin:demo",
        effective_at=effective_at,
        expires_at=expires_at,
        grant_id=grant_id,
    )


def _quantity(random: Random, meter: str) -> int | str:
    """So that every event costs whole credits: figures that one can check in one's head, and whole
    cents for clients that take Cursor's for integers."""
    match meter:
        case "ai.tokens":
            return 500 * max(1, round(random.lognormvariate(6.8, 0.8) / 500))
        case "pages.written":
            return random.randint(1, 3)
        case _:
            return f"{random.randint(1, 4) / 2:.1f}"


def _month_start(at: datetime) -> datetime:
    return datetime(at.year, at.month, 1, tzinfo=UTC)
