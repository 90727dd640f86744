"""What the clock does: remainders of expired grants are forfeited after the late grace, and
deletions of groups that were published ahead of their time come into force.

The caller walks the `expiry` index in key order up to `now`, asks about each entry, and applies
the changes. Asking again after that gives nothing: the entry is gone.
"""

from datetime import datetime, timedelta

from msgspec import Struct, structs

from schemas.codec import StateKey
from schemas.records import Expiry, Grant, Group, Pool, Posting
from streams.decisions.ledger import Cause, PoolName, close, copy_of, forfeit
from streams.decisions.state import Changes, State, group_key, pool_key


class Forfeit(Struct, frozen=True):
    """Postings (none where nothing remained) and changes of one index entry that is due."""

    postings: list[Posting]
    changes: Changes


def decide_forfeit(
    key: StateKey, expiry: Expiry, state: State, now: datetime, late_grace: timedelta
) -> Forfeit | None:
    """What is due by now for an entry of the index, None where it is not due yet."""
    _, at_text, organization_id, _ = key
    at = datetime.fromisoformat(at_text)
    cause = Cause(organization_id, "", 0, at, now)
    if not expiry.grant_id:
        return _close_group(key, expiry.pool_id, state, cause) if at <= now else None
    if at + late_grace > now:
        return None
    at_pool = pool_key(organization_id, expiry.pool_kind, expiry.pool_id)
    pool: Pool | None = state.get(at_pool)
    grant = _live_grant(pool, expiry.grant_id)
    changes: Changes = {key: None}
    if pool is None or grant is None:
        return Forfeit([], changes)
    left = copy_of(pool)
    name = PoolName(expiry.pool_kind, expiry.pool_id)
    entry_id = f"forfeit:{expiry.grant_id}"
    postings = forfeit(left, expiry.grant_id, cause, entry_id, "forfeit", name)
    changes[at_pool] = left
    return Forfeit(postings, changes)


def _live_grant(pool: Pool | None, grant_id: str) -> Grant | None:
    grants = pool.grants if pool is not None else []
    return next((grant for grant in grants if grant.grant_id == grant_id), None)


def _close_group(key: StateKey, group_id: str, state: State, cause: Cause) -> Forfeit:
    at_group = group_key(cause.organization_id, group_id)
    at_pool = pool_key(cause.organization_id, "group", group_id)
    group: Group = state.get(at_group) or _missing(group_id)
    postings = close(copy_of(state.get(at_pool)), cause, group_id)
    closed = structs.replace(group, closed=True)
    return Forfeit(postings, {key: None, at_group: closed, at_pool: None})


def _missing(group_id: str) -> Group:
    raise AssertionError(f"group {group_id} is to be deleted, but was never created")
