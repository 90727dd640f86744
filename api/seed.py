"""A ready organisation through the rules, for demos and benchmarks: one transaction, or nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from api.options import alias_secret
from api.rules.change import Actor, Control
from api.rules.credits import NewGrant, NewPrice, grant, set_price
from api.rules.groups import create_group
from api.rules.keys import Scope, create_key
from api.rules.members import NewMember, create_member
from api.rules.memberships import place
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.websites import create_website
from api.storage.models import Organization
from api.storage.store import Store, database_url
from schemas.records import UNASSIGNED
from schemas.settings import Settings

SEEDER = Actor("system:seed", "api")


@dataclass(frozen=True, slots=True)
class Seed:
    """What the organisation has from the beginning; ids are chosen by the caller."""

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


def seed_organization(settings: Settings, wanted: Seed, at: datetime) -> dict[str, str] | None:
    """Makes the organisation as if at `at`, so that usage since then is attributed; the secrets of
    its keys by scope. None, and nothing is changed, where the organisation is there already.

    The database must be migrated; an API process publishes the facts. Raises Refused.
    """
    store = Store(database_url(settings))
    try:
        control = Control(store, lambda: at, alias_secret(settings))
        with store.read() as session:
            if session.get(Organization, wanted.organization_id) is not None:
                return None
        return _seed(control, wanted)
    finally:
        store.close()


def _seed(control: Control, wanted: Seed) -> dict[str, str]:
    with control.transaction(SEEDER) as transaction:
        change = create_organization(
            transaction, wanted.name, wanted.settings, wanted.organization_id
        )
        for price in wanted.prices:
            set_price(change, price)
        for group_id, name in wanted.groups.items():
            create_group(change, name, group_id)
        for member in wanted.members:
            create_member(change, member)
        placements: dict[str, str | None] = dict(wanted.places)
        place(change, placements, SEEDER.how)
        for website_id, (name, group_id) in wanted.websites.items():
            create_website(change, name, group_id or UNASSIGNED, website_id)
        for new in wanted.grants:
            grant(change, new)
        secrets = {}
        for scope in wanted.keys:
            bound = None if scope is Scope.OPERATOR else wanted.organization_id
            secrets[scope.value] = create_key(transaction, scope, "seed", bound).secret
    return secrets
