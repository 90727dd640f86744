"""What becomes of a fresh usage event: attributed, priced, funded, as one row of `usage-rated`.

`decide_usage` reads only; `apply_rated` then takes from the pools what the row says. What does
not depend on pools (who, which price, which settings) is kept per (organisation, subject, meter,
website) for as long as it holds: until the organisation's next membership fact, and within a span
of event time.
"""

from datetime import datetime
from typing import Final

from msgspec import Struct

from schemas.codec import StateKey
from schemas.reasons import Reason
from schemas.records import INT64_MAX, Allocation, Organization, Pool, RatedEvent, SettingsSpan
from streams.decisions.attribution import (
    AliasHash,
    Validity,
    as_of,
    group_of_member,
    group_of_website,
    resolve_member,
)
from streams.decisions.events import UsageEvent
from streams.decisions.outcomes import Rejected, shown
from streams.decisions.rating import cost_micro, price_as_of
from streams.decisions.state import State, pool_key, price_key, website_key
from streams.decisions.waterfall import apply_allocations, draw

ROUTES_LIMIT: Final = 50_000
"""Routes kept; beyond it all are forgotten and learnt anew."""


class Route(Struct, frozen=True, gc=False):
    """What holds for usage of one subject, meter and website, between two event times."""

    memberships_version: int
    begins: datetime
    ends: datetime
    member_id: str
    resolved_by: str
    stamped_group_id: str
    funding_group_id: str
    membership_version: int
    settings_version: int
    price_version: int
    price_micro: int
    credit_price_micro: int
    currency: str
    website_pool: StateKey | None
    group_pool: StateKey | None


class UsageContext:
    """What decisions about one partition's usage need besides the state. One for each lane.

    `now` is set by the caller before each batch and becomes `recorded_at`.
    """

    __slots__ = ("alias_hash", "input_partition", "input_topic", "now", "routes")

    def __init__(
        self, input_topic: str, input_partition: int, alias_hash: AliasHash, now: datetime
    ) -> None:
        self.input_topic = input_topic
        self.input_partition = input_partition
        self.alias_hash = alias_hash
        self.now = now
        self.routes: dict[tuple[str, str, str, str], Route] = {}


def decide_usage(
    event: UsageEvent, offset: int, state: State, context: UsageContext
) -> RatedEvent | Rejected:
    """The event's row, or why it has none: unknown_organization, no_price, cost_too_large."""
    organization_id = event.organization_id
    organization: Organization | None = state.get(("organization", organization_id))
    if organization is None:
        return Rejected(
            Reason.UNKNOWN_ORGANIZATION,
            f"No organization_created is known for {shown(organization_id)}.",
        )
    at = event.event_time
    route = context.routes.get((organization_id, event.subject, event.meter, event.website_id))
    if (
        route is None
        or route.memberships_version != organization.memberships_version
        or not route.begins <= at < route.ends
    ):
        found = _find_route(event, organization, state, context)
        if isinstance(found, Rejected):
            return found
        route = found
    price_micro = route.price_micro
    quantity_micro = event.quantity_micro
    cost = cost_micro(quantity_micro, price_micro)
    if cost > INT64_MAX:
        return Rejected(
            Reason.COST_TOO_LARGE,
            f"{quantity_micro} millionths of {shown(event.meter)} at {price_micro} micro-credits "
            f"per million units cost more than {INT64_MAX} micro-credits.",
        )
    allocations: list[Allocation] = []
    website_debit = website_balance = group_debit = group_balance = 0
    if route.website_pool is not None:
        pool: Pool | None = state.get(route.website_pool)
        if pool is not None:
            website_debit = draw(pool, "website", cost, at, allocations)
            website_balance = pool.balance_micro - website_debit
    if route.group_pool is not None:
        pool = state.get(route.group_pool)
        if pool is not None:
            group_debit = draw(pool, "group", cost - website_debit, at, allocations)
            group_balance = pool.balance_micro - group_debit
    return RatedEvent(
        organization_id,
        event.source,
        event.event_id,
        0,
        at,
        event.meter,
        event.subject,
        route.member_id,
        route.resolved_by,
        event.website_id,
        event.dimensions,
        route.stamped_group_id,
        route.funding_group_id,
        route.membership_version,
        route.settings_version,
        route.price_version,
        price_micro,
        quantity_micro,
        cost,
        website_debit,
        group_debit,
        cost - website_debit - group_debit,
        route.credit_price_micro,
        route.currency,
        allocations,
        website_balance,
        group_balance,
        context.input_topic,
        context.input_partition,
        offset,
        event.appended_at,
        context.now,
    )


def apply_rated(rated: RatedEvent, state: State) -> None:
    """Takes from the pools what the row says; the row is the whole decision."""
    if rated.allocations:
        apply_allocations(
            rated.organization_id,
            rated.website_id,
            rated.funding_group_id,
            rated.allocations,
            state,
        )


def _find_route(
    event: UsageEvent, organization: Organization, state: State, context: UsageContext
) -> Route | Rejected:
    organization_id, website_id = event.organization_id, event.website_id
    validity = Validity(event.event_time)
    price = price_as_of(state.get(price_key(organization_id, event.meter)), validity)
    if price is None:
        return Rejected(
            Reason.NO_PRICE,
            f"Meter {shown(event.meter)} has no price for {shown(organization_id)} as of "
            f"{event.event_time.isoformat()}.",
        )
    member_id, resolved_by = resolve_member(
        organization_id, event.subject, state, context.alias_hash, validity
    )
    stamped = group_of_member(organization_id, member_id, state, validity)
    settings = settings_as_of(organization, validity)
    funding = stamped
    if settings.settings.funding_group == "website" and website_id:
        funding = group_of_website(organization_id, website_id, state, validity)
    website_known = website_id and state.get(website_key(organization_id, website_id)) is not None
    route = Route(
        memberships_version=organization.memberships_version,
        begins=validity.begins,
        ends=validity.ends,
        member_id=member_id,
        resolved_by=resolved_by,
        stamped_group_id=stamped.group_id,
        funding_group_id=funding.group_id if funding.funded else "",
        membership_version=stamped.version,
        settings_version=settings.version,
        price_version=price.version,
        price_micro=price.micro_per_million_units,
        credit_price_micro=settings.settings.credit_price_micro,
        currency=settings.settings.currency,
        website_pool=pool_key(organization_id, "website", website_id) if website_known else None,
        group_pool=(
            pool_key(organization_id, "group", funding.group_id) if funding.funded else None
        ),
    )
    if not (stamped.closing or funding.closing):
        if len(context.routes) >= ROUTES_LIMIT:
            context.routes.clear()
        context.routes[(organization_id, event.subject, event.meter, website_id)] = route
    return route


def settings_as_of(organization: Organization, validity: Validity) -> SettingsSpan:
    """The settings by then; before the first ones, the first: an organisation always has some."""
    settings = as_of(organization.settings, validity)
    return organization.settings[0] if settings is None else settings
