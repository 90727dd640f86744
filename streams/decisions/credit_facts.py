"""What each fact of `credits` moves: grants, revocations, adjustments. Debt is repaid first."""

from msgspec import structs

from schemas.bounds import POOL_GRANTS_MAX
from schemas.reasons import Reason
from schemas.records import (
    UNASSIGNED,
    Adjusted,
    CreditRecord,
    Expiry,
    Grant,
    Granted,
    Group,
    IssuedGrant,
    Posting,
    Revoked,
)
from streams.decisions.fact_checks import check_amount, check_fact, invalid
from streams.decisions.ledger import (
    Cause,
    PoolName,
    copy_of,
    fits,
    note_unspent,
    put_in,
    remaining_micro,
    take_back,
    take_out,
)
from streams.decisions.membership_facts import check_group, group_deleted
from streams.decisions.outcomes import Rejected, shown
from streams.decisions.state import (
    Draft,
    State,
    expiry_key,
    grant_key,
    group_key,
    pool_key,
    website_key,
)

RESERVED_PREFIXES = ("adjustment:", "group-deleted:")
"""Grant ids that we make ourselves."""

Result = Rejected | list[Posting]


def decide_credit(record: CreditRecord, draft: Draft, cause: Cause) -> Result:
    """Writes into the draft what the fact changes, and answers its postings."""
    wrong = check_fact(record)
    if wrong is not None:
        return wrong
    fact = record.fact
    if isinstance(fact, Granted):
        return _granted(fact, draft, cause)
    if isinstance(fact, Revoked):
        return _revoked(fact, draft, cause)
    return _adjusted(fact, draft, cause)


def pool_named_by(record: CreditRecord, state: State) -> PoolName:
    """The pool of an applied credit fact; a revocation's is that of its grant."""
    fact = record.fact
    if not isinstance(fact, Revoked):
        return PoolName(fact.pool_kind, fact.pool_id)
    issued: IssuedGrant | None = state.get(grant_key(record.organization_id, fact.grant_id))
    assert issued is not None, "an applied revocation has its grant"
    return PoolName(issued.pool_kind, issued.pool_id)


def _granted(fact: Granted, draft: Draft, cause: Cause) -> Result:
    name = PoolName(fact.pool_kind, fact.pool_id)
    wrong = _check_grant(fact, cause) or _check_pool(name, draft, cause)
    if wrong is not None:
        return wrong
    if draft.get(grant_key(cause.organization_id, fact.grant_id)) is not None:
        return Rejected(
            Reason.GRANT_EXISTS, f"Grant {shown(fact.grant_id)} was given before; ids are unique."
        )
    grant = Grant(
        fact.grant_id,
        fact.kind,
        fact.amount_micro,
        cause.effective_at,
        fact.expires_at,
        cause.version,
    )
    return _issue(grant, name, draft, cause, f"grant:{fact.grant_id}", adjustment=False)


def _check_grant(fact: Granted, cause: Cause) -> Rejected | None:
    if fact.amount_micro <= 0:
        return invalid(f"amount_micro is {shown(fact.amount_micro)}; a grant is more than 0.")
    if fact.grant_id.startswith(RESERVED_PREFIXES):
        return invalid(f"grant_id is {shown(fact.grant_id)}, whose prefix is reserved.")
    if fact.expires_at is None:
        if fact.kind == "monthly":
            return invalid("expires_at is missing; a monthly grant ends with its period.")
    elif fact.expires_at <= cause.effective_at:
        return invalid(
            f"expires_at is {fact.expires_at.isoformat()}, not after effective_at "
            f"({cause.effective_at.isoformat()})."
        )
    return None


def _issue(
    grant: Grant, name: PoolName, draft: Draft, cause: Cause, entry_id: str, *, adjustment: bool
) -> Result:
    amount_micro = grant.remaining_micro
    wrong = check_amount(amount_micro)
    if wrong is not None:
        return wrong
    at_pool = pool_key(cause.organization_id, name.kind, name.pool_id)
    pool = copy_of(draft.get(at_pool))
    postings = put_in(pool, grant, cause, entry_id, name, adjustment=adjustment)
    if not fits(pool):
        return _pool_too_large(name)
    if len(pool.grants) > POOL_GRANTS_MAX and grant.remaining_micro:
        return Rejected(
            Reason.TOO_MANY_GRANTS,
            f"The {name.kind} pool {shown(name.pool_id)} has {POOL_GRANTS_MAX} grants of which "
            "something is left, as many as a pool can have; give it fewer and larger ones.",
        )
    draft.put(at_pool, pool)
    draft.put(
        grant_key(cause.organization_id, grant.grant_id),
        IssuedGrant(name.kind, name.pool_id, amount_micro),
    )
    if grant.expires_at is not None and grant.remaining_micro:
        draft.put(
            expiry_key(grant.expires_at, cause.organization_id, grant.grant_id),
            Expiry(name.kind, name.pool_id, grant.grant_id),
        )
    return postings


def _revoked(fact: Revoked, draft: Draft, cause: Cause) -> Result:
    if fact.amount_micro <= 0:
        return invalid(f"amount_micro is {shown(fact.amount_micro)}; it must be more than 0.")
    at_grant = grant_key(cause.organization_id, fact.grant_id)
    issued: IssuedGrant | None = draft.get(at_grant)
    if issued is None:
        return Rejected(Reason.UNKNOWN_GRANT, f"There is no grant {shown(fact.grant_id)}.")
    left_micro = issued.amount_micro - issued.revoked_micro
    if fact.amount_micro > left_micro:
        return Rejected(
            Reason.AMOUNT_TOO_LARGE,
            f"amount_micro is {shown(fact.amount_micro)}, but of grant {shown(fact.grant_id)} only "
            f"{left_micro} of {issued.amount_micro} can still be revoked.",
        )
    name = PoolName(issued.pool_kind, issued.pool_id)
    at_pool = pool_key(cause.organization_id, name.kind, name.pool_id)
    pool = copy_of(draft.get(at_pool))
    is_closed = _is_closed(name, draft, cause)
    unspent_micro = remaining_micro(pool, fact.grant_id)
    postings = take_back(
        pool,
        fact.grant_id,
        fact.amount_micro,
        issued.forfeited_micro,
        cause,
        name,
        is_closed=is_closed,
    )
    if not fits(pool):
        return _pool_too_large(name)
    beyond_micro = max(0, fact.amount_micro - unspent_micro)
    if not is_closed:
        draft.put(at_pool, pool)
    draft.put(
        at_grant,
        structs.replace(
            issued,
            revoked_micro=issued.revoked_micro + fact.amount_micro,
            forfeited_micro=max(0, issued.forfeited_micro - beyond_micro),
        ),
    )
    return postings


def _adjusted(fact: Adjusted, draft: Draft, cause: Cause) -> Result:
    name = PoolName(fact.pool_kind, fact.pool_id)
    if fact.amount_micro == 0:
        return invalid("amount_micro is 0; an adjustment changes something.")
    wrong = _check_pool(name, draft, cause) or check_amount(fact.amount_micro)
    if wrong is not None:
        return wrong
    if fact.amount_micro > 0:
        grant_id = f"adjustment:{cause.version}"
        grant = Grant(
            grant_id, "one_time", fact.amount_micro, cause.effective_at, None, cause.version
        )
        entry_id = f"adjust:{cause.version}"
        return _issue(grant, name, draft, cause, entry_id, adjustment=True)
    at_pool = pool_key(cause.organization_id, name.kind, name.pool_id)
    pool = copy_of(draft.get(at_pool))
    postings = take_out(pool, -fact.amount_micro, cause, name)
    if not fits(pool):
        return _pool_too_large(name)
    draft.put(at_pool, pool)
    note_unspent(draft, postings)
    return postings


def _check_pool(name: PoolName, draft: Draft, cause: Cause) -> Rejected | None:
    if name.kind == "website":
        if draft.get(website_key(cause.organization_id, name.pool_id)) is None:
            return Rejected(Reason.UNKNOWN_WEBSITE, f"There is no website {shown(name.pool_id)}.")
        return None
    if name.pool_id == UNASSIGNED:
        return Rejected(Reason.RESERVED_GROUP, f"{shown(UNASSIGNED)} cannot have credits.")
    if _is_closed(name, draft, cause):
        return group_deleted(name.pool_id)
    return check_group(name.pool_id, draft, cause)


def _is_closed(name: PoolName, draft: Draft, cause: Cause) -> bool:
    """Whether it is the pool of a group whose deletion is in force."""
    if name.kind == "website":
        return False
    group: Group | None = draft.get(group_key(cause.organization_id, name.pool_id))
    return group is not None and group.closed


def _pool_too_large(name: PoolName) -> Rejected:
    return Rejected(
        Reason.AMOUNT_TOO_LARGE,
        f"The {name.kind} pool {shown(name.pool_id)} would hold or owe more than Int64 can say.",
    )
