"""What is known of an organization's subjects, websites and meters, kept ready for usage.

Nothing here depends on pools. Each answer holds between two event times and until the
organization's next membership fact; a batch of usage asks for the same few again and again.
"""

from datetime import datetime
from typing import Final

from msgspec import Struct

from schemas.codec import StateKey
from schemas.reasons import Reason
from schemas.records import Organization, SettingsSpan
from streams.decisions.attribution import (
    AliasHash,
    Validity,
    as_of,
    group_of_member,
    group_of_website,
    resolve_member,
)
from streams.decisions.outcomes import Rejected, shown
from streams.decisions.rating import price_as_of
from streams.decisions.state import State, pool_key, price_key, website_key

ANSWERS_LIMIT: Final = 100_000
"""Answers kept; beyond it all are forgotten and learnt anew. About 300 bytes each."""


class Stamp(Struct, frozen=True, gc=False):
    """Who a subject is, and in which group."""

    begins: datetime
    ends: datetime
    member_id: str
    resolved_by: str
    group_id: str
    version: int
    funding_group_id: str
    """The group itself; empty where it has no pool (Unassigned, deleted)."""
    pool: StateKey | None


class Site(Struct, frozen=True, gc=False):
    """What a website pays with: its own pool, and that of its group."""

    begins: datetime
    ends: datetime
    own_pool: StateKey | None
    funding_group_id: str
    group_pool: StateKey | None


class Terms(Struct, frozen=True, gc=False):
    """The price of a meter, and the settings that hold with it."""

    begins: datetime
    ends: datetime
    price_version: int
    price_micro: int
    settings_version: int
    credit_price_micro: int
    currency: str
    funded_by_website: bool


class Known:
    """The answers about one organization as of one version of its memberships."""

    __slots__ = ("sites", "stamps", "terms", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.stamps: dict[str, Stamp] = {}
        self.sites: dict[str, Site] = {}
        self.terms: dict[str, Terms] = {}


class UsageContext:
    """What decisions about one partition's usage need besides the state: one for each lane.

    `now` is set by the caller before each batch and becomes `recorded_at`. A context belongs to
    one state for life.
    """

    __slots__ = ("_answers", "alias_hash", "input_partition", "input_topic", "known", "now")

    def __init__(
        self, input_topic: str, input_partition: int, alias_hash: AliasHash, now: datetime
    ) -> None:
        self.input_topic = input_topic
        self.input_partition = input_partition
        self.alias_hash = alias_hash
        self.now = now
        self.known: dict[str, Known] = {}
        self._answers = 0

    def know(self, organization_id: str, organization: Organization) -> Known:
        """An empty book of answers for the organization as it is now."""
        self.count_answer()
        known = self.known[organization_id] = Known(organization.memberships_version)
        return known

    def count_answer(self) -> None:
        """To be called before an answer is kept; forgets everything at the bound."""
        if self._answers >= ANSWERS_LIMIT:
            self.known.clear()
            self._answers = 0
        self._answers += 1


def learn_stamp(
    organization_id: str,
    subject: str,
    at: datetime,
    state: State,
    context: UsageContext,
    known: Known,
) -> Stamp:
    validity = Validity(at)
    member_id, resolved_by = resolve_member(
        organization_id, subject, state, context.alias_hash, validity
    )
    group = group_of_member(organization_id, member_id, state, validity)
    stamp = Stamp(
        validity.begins,
        validity.ends,
        member_id,
        resolved_by,
        group.group_id,
        group.version,
        group.group_id if group.funded else "",
        pool_key(organization_id, "group", group.group_id) if group.funded else None,
    )
    if not group.closing:
        context.count_answer()
        known.stamps[subject] = stamp
    return stamp


def learn_site(
    organization_id: str,
    website_id: str,
    at: datetime,
    state: State,
    context: UsageContext,
    known: Known,
) -> Site:
    validity = Validity(at)
    group = group_of_website(organization_id, website_id, state, validity)
    exists = state.get(website_key(organization_id, website_id)) is not None
    site = Site(
        validity.begins,
        validity.ends,
        pool_key(organization_id, "website", website_id) if exists else None,
        group.group_id if group.funded else "",
        pool_key(organization_id, "group", group.group_id) if group.funded else None,
    )
    if not group.closing:
        context.count_answer()
        known.sites[website_id] = site
    return site


def learn_terms(
    organization_id: str,
    organization: Organization,
    meter: str,
    at: datetime,
    state: State,
    context: UsageContext,
    known: Known,
) -> Terms | Rejected:
    """The terms, or `no_price`, which is not kept: no caller hurries to be refused."""
    validity = Validity(at)
    price = price_as_of(state.get(price_key(organization_id, meter)), validity)
    if price is None:
        return Rejected(
            Reason.NO_PRICE,
            f"Meter {shown(meter)} has no price for {shown(organization_id)} as of "
            f"{at.isoformat()}.",
        )
    span = settings_as_of(organization, validity)
    context.count_answer()
    terms = known.terms[meter] = Terms(
        validity.begins,
        validity.ends,
        price.version,
        price.micro_per_million_units,
        span.version,
        span.settings.credit_price_micro,
        span.settings.currency,
        span.settings.funding_group == "website",
    )
    return terms


def settings_as_of(organization: Organization, validity: Validity) -> SettingsSpan:
    """The settings by then; before the first ones, the first: an organization always has some."""
    span = as_of(organization.settings, validity)
    return organization.settings[0] if span is None else span
