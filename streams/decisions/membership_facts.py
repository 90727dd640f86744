"""What each fact of `memberships` changes: settings, groups, members, aliases, websites, prices."""

import re
from bisect import insort
from collections.abc import Callable
from typing import Any, Final, TypeVar

from msgspec import structs

from schemas.bounds import CHANGES_MAX, REMOVALS_SPARE
from schemas.reasons import Reason
from schemas.records import (
    INT64_MAX,
    UNASSIGNED,
    Expiry,
    Group,
    GroupCreated,
    GroupDeleted,
    GroupRenamed,
    MemberAlias,
    MemberAssigned,
    MemberRemoved,
    MembershipRecord,
    Organization,
    OrganizationCreated,
    OrganizationSettings,
    Posting,
    Price,
    Prices,
    PriceSet,
    SettingsSpan,
    Span,
    Timeline,
    WebsiteAssigned,
)
from schemas.time_zones import is_time_zone
from streams.decisions.attribution import Effective, Validity, as_of
from streams.decisions.fact_checks import check_fact, invalid
from streams.decisions.ledger import Cause, close, copy_of, note_unspent
from streams.decisions.outcomes import Rejected, shown
from streams.decisions.state import (
    Draft,
    State,
    alias_key,
    expiry_key,
    group_key,
    member_key,
    organization_key,
    pool_key,
    price_key,
    website_key,
)

Result = Rejected | list[Posting]
_CURRENCY: Final = re.compile("[A-Z]{3}")
EffectiveT = TypeVar("EffectiveT", bound=Effective)


def decide_membership(record: MembershipRecord, draft: Draft, cause: Cause) -> Result:
    """Writes into the draft what the fact changes; only a group's deletion has postings."""
    wrong = check_fact(record)
    if wrong is not None:
        return wrong
    return _DECISIONS[type(record.fact)](record.fact, draft, cause)


def _created(fact: OrganizationCreated, draft: Draft, cause: Cause) -> Result:
    settings = OrganizationSettings(**structs.asdict(fact))
    wrong = _check_settings(settings)
    if wrong is not None:
        return wrong
    key = organization_key(cause.organization_id)
    if draft.get(key) is not None:
        return Rejected(
            Reason.ORGANIZATION_EXISTS,
            f"{shown(cause.organization_id)} exists; publish organization_settings to change it.",
        )
    span = SettingsSpan(cause.effective_at, cause.version, settings)
    draft.put(key, Organization(settings=[span]))
    return []


def _settings(fact: OrganizationSettings, draft: Draft, cause: Cause) -> Result:
    wrong = _check_settings(fact)
    if wrong is not None:
        return wrong
    key = organization_key(cause.organization_id)
    organization: Organization | None = draft.get(key)
    assert organization is not None, "facts before the organization are refused"
    if len(organization.settings) >= CHANGES_MAX:
        return _too_many_changes("settings of organization", cause.organization_id)
    span = SettingsSpan(cause.effective_at, cause.version, fact)
    settings = _with(organization.settings, span)
    draft.put(key, structs.replace(organization, settings=settings))
    return []


def _check_settings(fact: OrganizationSettings) -> Rejected | None:
    if not 0 <= fact.credit_price_micro <= INT64_MAX:
        return invalid(
            f"credit_price_micro is {shown(fact.credit_price_micro)}; it must be from 0 to "
            f"{INT64_MAX}."
        )
    if not _CURRENCY.fullmatch(fact.currency):
        return invalid(f"currency is {shown(fact.currency)}; it must be a code like 'USD'.")
    if not 1 <= fact.billing_anchor_day <= 31:
        return invalid(
            f"billing_anchor_day is {shown(fact.billing_anchor_day)}; it must be from 1 to 31."
        )
    if not is_time_zone(fact.time_zone):
        return invalid(f"time_zone is {shown(fact.time_zone)}, which is no IANA time zone.")
    return None


def _assigned(fact: MemberAssigned, draft: Draft, cause: Cause) -> Result:
    wrong = check_group(fact.group_id, draft, cause)
    if wrong is not None:
        return wrong
    key = member_key(cause.organization_id, fact.member_id)
    return _extend(draft, key, fact.group_id, cause)


def _removed(fact: MemberRemoved, draft: Draft, cause: Cause) -> Result:
    key = member_key(cause.organization_id, fact.member_id)
    if draft.get(key) is None:
        return _unknown_member(fact.member_id)
    return _extend(draft, key, UNASSIGNED, cause, spare=REMOVALS_SPARE)


def _alias(fact: MemberAlias, draft: Draft, cause: Cause) -> Result:
    if draft.get(member_key(cause.organization_id, fact.member_id)) is None:
        return _unknown_member(fact.member_id)
    key = alias_key(cause.organization_id, fact.alias_hash)
    timeline: Timeline = draft.get(key) or Timeline()
    holder = as_of(timeline.spans, Validity(cause.effective_at))
    held_by = holder.value if holder is not None else ""
    if fact.removed:
        if held_by != fact.member_id:
            return invalid(
                f"alias_hash {shown(fact.alias_hash)} is not an alias of {shown(fact.member_id)} "
                f"at {cause.effective_at.isoformat()}."
            )
        return _extend(draft, key, "", cause, spare=REMOVALS_SPARE)
    later = {span.value for span in timeline.spans if span.effective_at > cause.effective_at}
    others = ({held_by} | later) - {"", fact.member_id}
    if others:
        return Rejected(
            Reason.ALIAS_TAKEN,
            f"alias_hash {shown(fact.alias_hash)} belongs to {shown(min(others))}; remove it "
            "there first.",
        )
    return _extend(draft, key, fact.member_id, cause)


def _group_created(fact: GroupCreated, draft: Draft, cause: Cause) -> Result:
    key = group_key(cause.organization_id, fact.group_id)
    if fact.group_id == UNASSIGNED:
        return _reserved()
    if draft.get(key) is not None:
        return Rejected(
            Reason.GROUP_EXISTS,
            f"Group {shown(fact.group_id)} exists or existed; ids are not used again.",
        )
    draft.put(key, Group(cause.effective_at))
    return []


def _group_renamed(fact: GroupRenamed, draft: Draft, cause: Cause) -> Result:
    if fact.group_id == UNASSIGNED:
        return _reserved()
    return check_group(fact.group_id, draft, cause) or []


def _group_deleted(fact: GroupDeleted, draft: Draft, cause: Cause) -> Result:
    """In force at once, or, where it was published ahead of its time, by the clock."""
    if fact.group_id == UNASSIGNED:
        return _reserved()
    key = group_key(cause.organization_id, fact.group_id)
    group: Group | None = draft.get(key)
    if group is None:
        return unknown_group(fact.group_id)
    if group.deleted_at is not None:
        return group_deleted(fact.group_id)
    in_force = cause.effective_at <= cause.now
    draft.put(key, Group(group.created_at, cause.effective_at, in_force))
    if not in_force:
        name = f"group-deleted:{fact.group_id}"
        draft.put(
            expiry_key(cause.effective_at, cause.organization_id, name),
            Expiry("group", fact.group_id, ""),
        )
        return []
    at_pool = pool_key(cause.organization_id, "group", fact.group_id)
    postings = close(copy_of(draft.get(at_pool)), cause, fact.group_id)
    note_unspent(draft, postings)
    draft.delete(at_pool)
    return postings


def _website(fact: WebsiteAssigned, draft: Draft, cause: Cause) -> Result:
    wrong = check_group(fact.group_id, draft, cause)
    if wrong is not None:
        return wrong
    key = website_key(cause.organization_id, fact.website_id)
    return _extend(draft, key, fact.group_id, cause)


def _price(fact: PriceSet, draft: Draft, cause: Cause) -> Result:
    if not 0 <= fact.micro_per_million_units <= INT64_MAX:
        return invalid(
            f"micro_per_million_units is {shown(fact.micro_per_million_units)}; it must be from "
            f"0 to {INT64_MAX}."
        )
    key = price_key(cause.organization_id, fact.meter)
    prices: Prices = draft.get(key) or Prices()
    book = prices.default if fact.book == "default" else prices.organization
    if len(book) >= CHANGES_MAX:
        return _too_many_changes(f"{fact.book} price of meter", fact.meter)
    price = Price(cause.effective_at, cause.version, fact.micro_per_million_units)
    draft.put(key, structs.replace(prices, **{fact.book: _with(book, price)}))
    return []


def check_group(group_id: str, state: State, cause: Cause) -> Rejected | None:
    """Whether a group exists at the fact's time; Unassigned always does."""
    if group_id == UNASSIGNED:
        return None
    group: Group | None = state.get(group_key(cause.organization_id, group_id))
    if group is None:
        return unknown_group(group_id)
    deleted_at = group.deleted_at
    if deleted_at is not None and deleted_at <= cause.effective_at:
        return group_deleted(group_id)
    return None


def unknown_group(group_id: str) -> Rejected:
    return Rejected(Reason.UNKNOWN_GROUP, f"There is no group {shown(group_id)}.")


def group_deleted(group_id: str) -> Rejected:
    return Rejected(Reason.GROUP_DELETED, f"Group {shown(group_id)} is deleted.")


def _reserved() -> Rejected:
    return Rejected(
        Reason.RESERVED_GROUP, f"{shown(UNASSIGNED)} cannot be created, renamed or deleted."
    )


def _unknown_member(member_id: str) -> Rejected:
    return Rejected(
        Reason.UNKNOWN_MEMBER,
        f"There is no member {shown(member_id)}; a member begins with member_assigned.",
    )


def _extend(
    draft: Draft, key: tuple[str, ...], value: str, cause: Cause, *, spare: int = 0
) -> Result:
    """Adds a span to a timeline, unless it is full; `spare` places are for what removes."""
    timeline: Timeline = draft.get(key) or Timeline()
    if len(timeline.spans) >= CHANGES_MAX + spare:
        return _too_many_changes(key[0], key[2])
    span = Span(cause.effective_at, cause.version, value)
    draft.put(key, Timeline(_with(timeline.spans, span)))
    return []


def _too_many_changes(what: str, identifier: str) -> Rejected:
    return Rejected(
        Reason.TOO_MANY_CHANGES,
        f"The {what} {shown(identifier)} has changed {CHANGES_MAX} times, as often as is kept; "
        "find out what changes it so often.",
    )


def _with(spans: list[EffectiveT], span: EffectiveT) -> list[EffectiveT]:
    """A sorted copy with one more."""
    longer = [*spans]
    insort(longer, span, key=lambda each: (each.effective_at, each.version))
    return longer


_DECISIONS: Final[dict[type[Any], Callable[[Any, Draft, Cause], Result]]] = {
    OrganizationCreated: _created,
    OrganizationSettings: _settings,
    MemberAssigned: _assigned,
    MemberRemoved: _removed,
    MemberAlias: _alias,
    GroupCreated: _group_created,
    GroupRenamed: _group_renamed,
    GroupDeleted: _group_deleted,
    WebsiteAssigned: _website,
    PriceSet: _price,
}
