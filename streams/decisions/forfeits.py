"""What the clock does: remainders of expired grants are forfeited after the late grace, and
deletions of groups that were published ahead of their time come into force.

The caller walks the `expiry` index in key order up to the strike, asks about each entry, applies
the changes. Asking again after that gives nothing: the entry is gone.
"""

from datetime import datetime, timedelta

from msgspec import Struct, structs

from schemas.codec import StateKey
from schemas.records import Expiry, Group, Posting
from streams.decisions.ledger import (
    Cause,
    PoolName,
    close,
    copy_of,
    forfeit,
    note_unspent,
    remaining_micro,
)
from streams.decisions.state import Changes, Draft, State, group_key, pool_key


class Forfeit(Struct, frozen=True):
    """Postings (none where nothing remained) and changes of one index entry that is due."""

    postings: list[Posting]
    changes: Changes


def decide_forfeit(
    key: StateKey,
    expiry: Expiry,
    state: State,
    struck_at: datetime,
    now: datetime,
    late_grace: timedelta,
) -> Forfeit | None:
    """What was due for an entry of the index when the clock struck, None where it was not yet.

    Everything that was in the topics by then has been decided; what came after may have been used
    in time, so what falls due between then and `now` waits for the next strike.
    """
    _, at_text, organization_id, _ = key
    at = datetime.fromisoformat(at_text)
    cause = Cause(organization_id, "", 0, at, now)
    if not expiry.grant_id:
        return _close_group(key, expiry.pool_id, state, cause) if at <= struck_at else None
    if at + late_grace > struck_at:
        return None
    at_pool = pool_key(organization_id, expiry.pool_kind, expiry.pool_id)
    pool = copy_of(state.get(at_pool))
    draft = Draft(state)
    draft.delete(key)
    if not remaining_micro(pool, expiry.grant_id):
        return Forfeit([], draft.changes)
    name = PoolName(expiry.pool_kind, expiry.pool_id)
    entry_id = f"forfeit:{expiry.grant_id}"
    postings = forfeit(pool, expiry.grant_id, cause, entry_id, "forfeit", name)
    draft.put(at_pool, pool)
    note_unspent(draft, postings)
    return Forfeit(postings, draft.changes)


def _close_group(key: StateKey, group_id: str, state: State, cause: Cause) -> Forfeit:
    at_group = group_key(cause.organization_id, group_id)
    at_pool = pool_key(cause.organization_id, "group", group_id)
    group: Group = state.get(at_group) or _missing(group_id)
    postings = close(copy_of(state.get(at_pool)), cause, group_id)
    draft = Draft(state)
    draft.delete(key)
    draft.put(at_group, structs.replace(group, closed=True))
    draft.delete(at_pool)
    note_unspent(draft, postings)
    return Forfeit(postings, draft.changes)


def _missing(group_id: str) -> Group:
    raise AssertionError(f"group {group_id} is to be deleted, but was never created")
