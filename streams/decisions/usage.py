"""What becomes of a fresh usage event: attributed, priced, funded, as one row of `usage-rated`.

`decide_usage` reads only; `apply_rated` then takes from the pools what the row says.
"""

from schemas.reasons import Reason
from schemas.records import INT64_MAX, Allocation, Organization, Pool, RatedEvent
from streams.decisions.events import UsageEvent
from streams.decisions.known import (
    Site,
    Stamp,
    Terms,
    UsageContext,
    learn_site,
    learn_stamp,
    learn_terms,
)
from streams.decisions.outcomes import Rejected, shown
from streams.decisions.rating import cost_micro
from streams.decisions.state import State
from streams.decisions.waterfall import draw, take_from_grant

__all__ = ["UsageContext", "apply_rated", "decide_usage"]


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
    known = context.known.get(organization_id)
    if known is None or known.version != organization.memberships_version:
        known = context.know(organization_id, organization)
    at = event.event_time
    meter = event.meter
    terms = known.terms.get(meter)
    if terms is None or not terms.begins <= at < terms.ends:
        learnt = learn_terms(organization_id, organization, meter, at, state, context, known)
        if isinstance(learnt, Rejected):
            return learnt
        terms = learnt
    subject = event.subject
    stamp = known.stamps.get(subject)
    if stamp is None or not stamp.begins <= at < stamp.ends:
        stamp = learn_stamp(organization_id, subject, at, state, context, known)
    website_id = event.website_id
    site = None
    if website_id:
        site = known.sites.get(website_id)
        if site is None or not site.begins <= at < site.ends:
            site = learn_site(organization_id, website_id, at, state, context, known)
    return _rate(event, offset, terms, stamp, site, state, context)


def apply_rated(rated: RatedEvent, state: State) -> None:
    """Takes from the pools what the row says; the row is the whole decision."""
    for allocation in rated.allocations:
        kind = allocation.pool
        pool_id = rated.funding_group_id if kind == "group" else rated.website_id
        key = ("pool", rated.organization_id, kind, pool_id)
        pool: Pool | None = state.get(key)
        assert pool is not None, "a debit has its pool"
        amount_micro = allocation.amount_micro
        first = pool.grants[0]
        # The common case of `take_from_grant`, spelled out.
        if first.remaining_micro > amount_micro and first.grant_id == allocation.grant_id:
            first.remaining_micro -= amount_micro
            pool.balance_micro -= amount_micro
        else:
            take_from_grant(pool, allocation.grant_id, amount_micro)
        state.put(key, pool)


def _rate(
    event: UsageEvent,
    offset: int,
    terms: Terms,
    stamp: Stamp,
    site: Site | None,
    state: State,
    context: UsageContext,
) -> RatedEvent | Rejected:
    cost = left = cost_micro(event.quantity_micro, terms.price_micro)
    if cost > INT64_MAX:
        return _cost_too_large(event, terms)
    at = event.event_time
    allocations: list[Allocation] = []
    website_debit = website_balance = group_debit = group_balance = 0
    funding_group_id, group_pool = stamp.funding_group_id, stamp.pool
    if site is not None:
        if terms.funded_by_website:
            funding_group_id, group_pool = site.funding_group_id, site.group_pool
        if site.own_pool is not None:
            pool: Pool | None = state.get(site.own_pool)
            if pool is not None:
                website_debit = draw(pool, "website", left, at, allocations)
                left -= website_debit
                website_balance = pool.balance_micro - website_debit
    if group_pool is not None:
        pool = state.get(group_pool)
        if pool is not None:
            group_debit = draw(pool, "group", left, at, allocations)
            left -= group_debit
            group_balance = pool.balance_micro - group_debit
    return RatedEvent(
        event.organization_id, event.source, event.event_id, 0, at, event.meter, event.subject,
        stamp.member_id, stamp.resolved_by, event.website_id, event.dimensions,
        stamp.group_id, funding_group_id, stamp.version, terms.settings_version,
        terms.price_version, terms.price_micro, event.quantity_micro,
        cost, website_debit, group_debit, left, terms.credit_price_micro, terms.currency,
        allocations, website_balance, group_balance,
        context.input_topic, context.input_partition, offset, event.appended_at, context.now,
    )  # fmt: skip


def _cost_too_large(event: UsageEvent, terms: Terms) -> Rejected:
    return Rejected(
        Reason.COST_TOO_LARGE,
        f"{event.quantity_micro} millionths of {shown(event.meter)} at {terms.price_micro} "
        f"micro-credits per million units cost more than {INT64_MAX} micro-credits.",
    )
