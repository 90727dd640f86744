"""The model's rules of facts: what each needs to hold, and what it then says or moves.

The checks of a fact stand in the order of the reasons.
"""

from datetime import datetime

from cli.verification.books import GivenGrant, Movement, Organization, PoolId
from cli.verification.fact_reading import Fact, check_values
from cli.verification.parsing import Refused, refuse_if
from schemas.bounds import CHANGES_MAX, POOL_GRANTS_MAX, REMOVALS_SPARE
from schemas.reasons import Reason
from schemas.records import INT64_MAX, UNASSIGNED

SUBJECT = {
    "organization_created": ("settings", None),
    "organization_settings": ("settings", None),
    "member_assigned": ("member", "member_id"),
    "member_removed": ("member", "member_id"),
    "member_alias": ("alias", "alias_hash"),
    "group_created": ("group", "group_id"),
    "group_deleted": ("deletion", "group_id"),
    "website_assigned": ("website", "website_id"),
    "price_set": ("price", "meter"),
}
"""Under which kind and field an applied fact is looked up later."""


def apply_fact(organization: Organization, fact: Fact, now: datetime) -> list[Movement]:
    """Keeps the fact and answers what it moved. Raises Refused; nothing is kept then."""
    check_values(fact)
    if fact.topic == "credits":
        return _credit(organization, fact)
    _check_membership(organization, fact)
    if fact.type in SUBJECT:
        kind, name = SUBJECT[fact.type]
        former_facts = organization.facts_about[kind, fact[name] if name else ""]
        _check_room(fact, former_facts)
        former_facts.append(fact)
    if fact.type == "group_deleted" and fact.effective_at <= now:
        return close_group(organization, fact["group_id"])
    return []


def _check_room(fact: Fact, former_facts: list[Fact]) -> None:
    """What holds over time is kept a limited number of times; both books of a meter for itself."""
    if fact.type == "price_set":
        former_facts = [other for other in former_facts if other["book"] == fact["book"]]
    removes = fact.type == "member_removed" or (fact.type == "member_alias" and fact["removed"])
    most = CHANGES_MAX + REMOVALS_SPARE if removes else CHANGES_MAX
    refuse_if(len(former_facts) >= most, Reason.TOO_MANY_CHANGES)


def close_group(organization: Organization, group_id: str) -> list[Movement]:
    """The deletion is in force: what remains is forfeited, and debt is nobody's any more. Once."""
    if group_id in organization.closed:
        return []
    organization.closed.add(group_id)
    pool: PoolId = ("group", group_id)
    movements: list[Movement] = []
    for grant in sorted(organization.by_pool[pool], key=GivenGrant.burns):
        entry_id, left = closing_entry(group_id, grant.grant_id), grant.left_micro
        legs = [("available", grant.grant_id, -left), ("forfeited", grant.grant_id, left)]
        movements += organization.move(entry_id, legs, pool)
    owed = organization.debt[pool]
    legs = [("debt", "", owed), ("uncollected", "", -owed)]
    return movements + organization.move(f"group-debt:{group_id}", legs, pool)


def closing_entries(organization: Organization, group_id: str) -> list[str]:
    """The entries that closing the group would make now, if it is not closed already."""
    pool: PoolId = ("group", group_id)
    if group_id in organization.closed:
        return []
    grants = [grant for grant in organization.by_pool[pool] if grant.left_micro]
    entries = [closing_entry(group_id, grant.grant_id) for grant in grants]
    return [*entries, f"group-debt:{group_id}"] if organization.debt[pool] else entries


def closing_entry(group_id: str, grant_id: str) -> str:
    """What a deletion takes of a grant; the length tells apart what colons in the ids would not."""
    if group_id.count(":"):
        return ":".join(("group-closed", str(len(group_id)), group_id, grant_id))
    return ":".join(("group-deleted", group_id, grant_id))


def _check_membership(organization: Organization, fact: Fact) -> None:
    facts_about = organization.facts_about
    if fact.type == "organization_created":
        refuse_if(bool(facts_about.get(("settings", ""))), Reason.ORGANIZATION_EXISTS)
    if fact.type in ("group_created", "group_renamed", "group_deleted"):
        refuse_if(fact["group_id"] == UNASSIGNED, Reason.RESERVED_GROUP)
    if fact.type == "group_created":
        refuse_if(bool(facts_about.get(("group", fact["group_id"]))), Reason.GROUP_EXISTS)
    if fact.type == "group_deleted":
        refuse_if(not facts_about.get(("group", fact["group_id"])), Reason.UNKNOWN_GROUP)
        refuse_if(bool(facts_about.get(("deletion", fact["group_id"]))), Reason.GROUP_DELETED)
    if fact.type in ("group_renamed", "member_assigned", "website_assigned"):
        _check_group(organization, fact["group_id"], fact.effective_at)
    if fact.type in ("member_removed", "member_alias"):
        refuse_if(not facts_about.get(("member", fact["member_id"])), Reason.UNKNOWN_MEMBER)
    if fact.type == "member_alias":
        _check_alias(organization, fact)


def _check_group(organization: Organization, group_id: str, at: datetime) -> None:
    if group_id == UNASSIGNED:
        return
    refuse_if(not organization.facts_about.get(("group", group_id)), Reason.UNKNOWN_GROUP)
    deleted_at = organization.deleted_at(group_id)
    refuse_if(deleted_at is not None and deleted_at <= at, Reason.GROUP_DELETED)


def _check_alias(organization: Organization, fact: Fact) -> None:
    """An alias is one member's at a time, also where facts arrive out of their order."""
    now_held = organization.as_of("alias", fact["alias_hash"], fact.effective_at)
    holder = "" if now_held is None or now_held["removed"] else now_held["member_id"]
    if fact["removed"]:
        refuse_if(holder != fact["member_id"], Reason.INVALID_FACT)
        return
    holders = {holder} | {
        other["member_id"]
        for other in organization.facts_about.get(("alias", fact["alias_hash"]), ())
        if other.effective_at > fact.effective_at and not other["removed"]
    }
    refuse_if(bool(holders - {"", fact["member_id"]}), Reason.ALIAS_TAKEN)


def _credit(organization: Organization, fact: Fact) -> list[Movement]:
    if fact.type == "revoked":
        return _revoke(organization, fact)
    pool: PoolId = (fact["pool_kind"], fact["pool_id"])
    _check_pool(organization, pool, fact.effective_at)
    amount_micro = fact["amount_micro"]
    if fact.type == "granted":
        refuse_if(fact["grant_id"] in organization.grants, Reason.GRANT_EXISTS)
        grant = GivenGrant(
            fact["grant_id"],
            pool,
            fact["kind"] == "monthly",
            fact.effective_at,
            fact["expires_at"],
            amount_micro,
        )
        return _give(organization, grant, f"grant:{grant.grant_id}", "issued")
    if amount_micro > 0:
        name = f"adjustment:{fact.version}"
        grant = GivenGrant(name, pool, False, fact.effective_at, None, amount_micro)
        return _give(organization, grant, f"adjust:{fact.version}", "adjusted")
    refuse_if(-amount_micro > INT64_MAX, Reason.AMOUNT_TOO_LARGE)
    parts = organization.spend(pool, -amount_micro, fact.effective_at)
    owed = -amount_micro - sum(part for _, part in parts)
    refuse_if(organization.debt[pool] + owed > INT64_MAX, Reason.AMOUNT_TOO_LARGE)
    legs = [("available", grant_id, -part) for grant_id, part in parts]
    legs += [("debt", "", -owed), ("adjusted", "", -amount_micro)]
    return organization.move(f"adjust:{fact.version}", legs, pool)


def _check_pool(organization: Organization, pool: PoolId, at: datetime) -> None:
    kind, pool_id = pool
    if kind == "website":
        refuse_if(not organization.facts_about.get(("website", pool_id)), Reason.UNKNOWN_WEBSITE)
        return
    refuse_if(pool_id == UNASSIGNED, Reason.RESERVED_GROUP)
    refuse_if(pool_id in organization.closed, Reason.GROUP_DELETED)
    _check_group(organization, pool_id, at)


def _give(
    organization: Organization, grant: GivenGrant, entry_id: str, from_account: str
) -> list[Movement]:
    amount_micro, pool = grant.amount_micro, grant.pool
    repaid = min(organization.debt[pool], amount_micro)
    available = sum(other.left_micro for other in organization.by_pool[pool])
    refuse_if(amount_micro > INT64_MAX, Reason.AMOUNT_TOO_LARGE)
    refuse_if(available + amount_micro - repaid > INT64_MAX, Reason.AMOUNT_TOO_LARGE)
    live = sum(other.left_micro > 0 for other in organization.by_pool[pool])
    refuse_if(live >= POOL_GRANTS_MAX and amount_micro > repaid, Reason.TOO_MANY_GRANTS)
    organization.grants[grant.grant_id] = grant
    organization.by_pool[pool].append(grant)
    grant.spent_micro += repaid
    legs = [
        ("available", grant.grant_id, amount_micro - repaid),
        ("debt", grant.grant_id, repaid),
        (from_account, grant.grant_id, -amount_micro),
    ]
    return organization.move(entry_id, legs, pool)


def _revoke(organization: Organization, fact: Fact) -> list[Movement]:
    grant = organization.grants.get(fact["grant_id"])
    refuse_if(grant is None, Reason.UNKNOWN_GRANT)
    assert grant is not None
    amount_micro = fact["amount_micro"]
    refuse_if(grant.revoked_micro + amount_micro > grant.amount_micro, Reason.AMOUNT_TOO_LARGE)
    grant.revoked_micro += amount_micro
    taken_micro = min(grant.left_micro, amount_micro)
    # What was spent beyond that part of the grant that was never taken back.
    remaining_micro = grant.amount_micro - grant.revoked_micro
    owed = max(0, grant.spent_micro - remaining_micro) - grant.owed_micro
    kind, pool_id = grant.pool
    account = "uncollected" if kind == "group" and pool_id in organization.closed else "debt"
    if account == "debt" and organization.debt[grant.pool] + owed > INT64_MAX:
        grant.revoked_micro -= amount_micro
        raise Refused(Reason.AMOUNT_TOO_LARGE)
    grant.owed_micro += owed
    legs = [
        ("available", grant.grant_id, -taken_micro),
        (account, grant.grant_id, -owed),
        ("revoked", grant.grant_id, taken_micro + owed),
    ]
    return organization.move(f"revoke:{fact.version}", legs, grant.pool)
