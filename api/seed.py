"""A ready organization through the rules, for demos and benchmarks.

Each function here is one transaction, or nothing, and safe to repeat.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from api.clock import Clock
from api.ids import secret_hash
from api.rules.change import Actor, Control
from api.rules.credits import NewGrant, grant
from api.rules.groups import create_group
from api.rules.keys import Scope, create_key
from api.rules.members import NewMember, create_member
from api.rules.memberships import place
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.prices import NewPrice, set_price
from api.rules.websites import create_website
from api.storage.ledgers import ApiKey, Grant, OutboxFact
from api.storage.models import BillingGroup, Organization, Website
from api.storage.store import Store, database_url
from schemas.records import UNASSIGNED
from schemas.settings import Settings

SEEDER = Actor("system:seed", "api")
RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Seed:
    """What the organization has from the beginning; ids are chosen by the caller."""

    organization_id: str
    name: str
    settings: OrganizationSettings = field(default_factory=OrganizationSettings)
    groups: Mapping[str, str] = field(default_factory=dict)
    """Names by id."""
    members: Sequence[NewMember] = ()
    """Each with an id."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Groups by member id; who is absent is Unassigned."""
    websites: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name and group (`group_unassigned` for none) by id."""
    prices: Sequence[NewPrice] = ()
    grants: Sequence[NewGrant] = ()
    keys: Sequence[Scope] = (Scope.ADMIN,)


def seed_organization(settings: Settings, seed: Seed, at: datetime) -> dict[str, str] | None:
    """Makes the organization as if at `at`, so that usage since then is attributed; the secrets of
    its keys by scope. None, and nothing is changed, where the organization is there already.

    The database must be migrated; an API process publishes the facts. Raises Refused.
    """
    with _opened(settings, lambda: at) as control:
        with control.store.read() as session:
            if session.get(Organization, seed.organization_id) is not None:
                return None
        return _seed(control, seed)


def _seed(control: Control, seed: Seed) -> dict[str, str]:
    with control.transaction(SEEDER) as transaction:
        change = create_organization(transaction, seed.name, seed.settings, seed.organization_id)
        for price in seed.prices:
            set_price(change, price)
        for group_id, name in seed.groups.items():
            create_group(change, name, group_id)
        for member in seed.members:
            create_member(change, member)
        placements: dict[str, str | None] = dict(seed.places)
        place(change, placements, SEEDER.how)
        for website_id, (name, group_id) in seed.websites.items():
            create_website(change, name, group_id or UNASSIGNED, website_id)
        for new in seed.grants:
            grant(change, new)
        secrets = {}
        for scope in seed.keys:
            bound = None if scope is Scope.OPERATOR else seed.organization_id
            secrets[scope.value] = create_key(transaction, scope, "seed", bound).secret
        transaction.finish()
        # How long a fact waits for Kafka counts from now, whenever it is effective.
        transaction.session.execute(
            update(OutboxFact)
            .where(OutboxFact.organization_id == seed.organization_id)
            .values(created_at=datetime.now(UTC))
        )
    return secrets


def add_grants(
    settings: Settings, organization_id: str, grants: Iterable[NewGrant], clock: Clock
) -> int:
    """Grants what the organization has not been granted yet, by id; how many those were.

    Passes over pools that somebody has deleted. Raises Refused.
    """
    with _opened(settings, clock) as control:
        with control.store.read() as session:
            missing = [
                new
                for new in grants
                if session.get(Grant, (organization_id, new.grant_id)) is None
                and _is_there(session, organization_id, new)
            ]
        if missing:
            with control.change(organization_id, SEEDER) as change:
                for new in missing:
                    grant(change, new)
    return len(missing)


def _is_there(session: Session, organization_id: str, new: NewGrant) -> bool:
    if new.pool_kind == "website":
        return session.get(Website, (organization_id, new.pool_id)) is not None
    group = session.get(BillingGroup, (organization_id, new.pool_id))
    return group is not None and group.deleted_at is None


def ensure_key(
    settings: Settings,
    scope: Scope,
    organization_id: str | None,
    stored_secret: str,
    keep: Callable[[str], None],
) -> None:
    """Makes a key unless the secret `kept` is that of a live one of this scope and organization,
    which lives for at least `RENEW_BEFORE` more.

    `keep` is called with a new secret before the key is committed: whenever this is interrupted,
    there is no key whose secret nobody has. Raises Refused.
    """
    with _opened(settings, lambda: datetime.now(UTC)) as control:
        with control.store.read() as session:
            key = session.scalar(
                select(ApiKey).where(ApiKey.secret_hash == secret_hash(stored_secret))
            )
        if (
            key is not None
            and key.revoked_at is None
            and key.expires_at > control.clock() + RENEW_BEFORE
            and (key.scope, key.organization_id) == (scope.value, organization_id)
        ):
            return
        with control.transaction(SEEDER) as transaction:
            keep(create_key(transaction, scope, "metering up", organization_id).secret)


def waiting_facts(settings: Settings, organization_ids: Iterable[str]) -> int:
    """How many facts of the organizations are committed, but not known to be in Kafka.

    Raises Refused where the database does not answer.
    """
    query = (
        select(func.count())
        .select_from(OutboxFact)
        .where(
            OutboxFact.organization_id.in_(list(organization_ids)),
            OutboxFact.published_at.is_(None),
        )
    )
    with _opened(settings, lambda: datetime.now(UTC)) as control, control.store.read() as session:
        return session.scalar(query) or 0


@contextmanager
def _opened(settings: Settings, clock: Clock) -> Iterator[Control]:
    store = Store(database_url(settings))
    try:
        yield Control(store, clock, settings.alias_secret.get_secret_value().encode())
    finally:
        store.close()
