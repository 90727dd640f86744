"""Everything that is known about one event: what it cost, whose it is and which fact says so.

Looks at rated rows first and at dead letters too, since an event that was refused is asked about
most of all.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

EVENTS_MAX: Final = 20
"""Events with the same id, of different sources, and dead letters, that are looked at."""

_RATED: Final = """
SELECT * FROM usage_rated_rows
WHERE organization_id = {organization:String} AND event_id = {event:String}
    AND ({source:String} = '' OR source = {source:String})
ORDER BY source, event_time, revision, recorded_at DESC
LIMIT 1 BY source, event_time, revision
LIMIT 1000
"""
# Without FINAL, which would not use the index on event_id; equal rows are equal in everything.

_DEAD: Final = """
SELECT * FROM dead_letters
WHERE event_id = {event:String} AND organization_id IN ({organization:String}, '')
    AND ({source:String} = '' OR source IN ({source:String}, ''))
ORDER BY recorded_at
LIMIT {limit:UInt32}
"""

_FACTS: Final = """
SELECT version, type, effective_at, recorded_at, applied_at, how, member_id, group_id
FROM facts_applied
WHERE organization_id = {organization:String} AND topic = 'memberships'
    AND version IN {versions:Array(Int64)}
"""

_GRANTS: Final = """
SELECT grant_id, version, JSONExtractString(fact, 'kind') AS kind,
    JSONExtractString(fact, 'source') AS source, effective_at,
    parseDateTime64BestEffortOrNull(JSONExtractString(fact, 'expires_at'), 6, 'UTC') AS expires_at
FROM facts_applied
WHERE organization_id = {organization:String} AND topic = 'credits' AND type = 'granted'
    AND grant_id IN {grants:Array(String)}
ORDER BY grant_id
"""

_KNOWN_NOW: Final = """
SELECT group_id, group_name FROM {view:Identifier}
WHERE organization_id = {organization:String} AND source = {source:String}
    AND event_id = {event:String} AND revision = 0
    AND event_time = toDateTime64({time:String}, 6, 'UTC')
"""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FactSeen:
    """A fact of `memberships` that decided something about the event."""

    version: int
    type: str
    effective_at: datetime
    recorded_at: datetime
    applied_at: datetime
    how: str
    member_id: str
    group_id: str


@dataclass(frozen=True, slots=True)
class GrantSeen:
    """Credits that paid: the fact of `credits` that granted them, and where they came from."""

    grant_id: str
    version: int
    kind: str
    source: str
    effective_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventExplained:
    """`event` is the row with revision 0, `corrections` those after it; columns as stored."""

    event: Row
    corrections: tuple[Row, ...]
    facts: dict[int, FactSeen]
    """By version: membership, settings and price, as far as they are facts that were applied."""
    grants: tuple[GrantSeen, ...]
    """Those that paid something of it; adjustments are none."""
    reported_group: tuple[str, str]
    """Id and name as reports show it, a deleted group as Unassigned."""
    known_now_group: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Empty of both when nothing is known of the event."""

    events: tuple[EventExplained, ...]
    dead_letters: tuple[Row, ...]


def explain_event(
    client: Any, organization_id: str, event_id: str, source: str = ""
) -> Explanation:
    """What is known of an event; of all sources when none is named."""
    parameters = {"organization": organization_id, "event": event_id, "source": source}
    by_event: dict[tuple[str, datetime], list[Row]] = {}
    for row in client.query(_RATED, parameters=parameters).named_results():
        by_event.setdefault((row["source"], row["event_time"]), []).append(row)
    dead = client.query(_DEAD, parameters={**parameters, "limit": EVENTS_MAX}).named_results()
    return Explanation(
        events=tuple(_explained(client, rows) for rows in list(by_event.values())[:EVENTS_MAX]),
        dead_letters=tuple(dead),
    )


def _explained(client: Any, rows: list[Row]) -> EventExplained:
    event, *corrections = rows
    versions = [event["membership_version"], event["settings_version"], event["price_version"]]
    facts = client.query(
        _FACTS, parameters={"organization": event["organization_id"], "versions": versions}
    )
    paying = sorted({each["grant_id"] for row in rows for each in allocations_of(row)})
    grants = client.query(
        _GRANTS, parameters={"organization": event["organization_id"], "grants": paying}
    )
    return EventExplained(
        event=event,
        corrections=tuple(corrections),
        facts={row[0]: FactSeen(*row) for row in facts.result_rows},
        grants=tuple(GrantSeen(*row) for row in grants.result_rows),
        reported_group=_group(client, event, "spend"),
        known_now_group=_group(client, event, "spend_known_now"),
    )


def allocations_of(row: Row) -> list[dict[str, Any]]:
    """What each grant paid of a row, whether the client gives tuples or named fields."""
    names = ("pool", "grant_id", "amount_micro")
    return [
        each if isinstance(each, dict) else dict(zip(names, each, strict=True))
        for each in row["allocations"]
    ]


def _group(client: Any, event: Row, view: str) -> tuple[str, str]:
    """Of revision 0; of a correction whose event is not there yet, as stamped."""
    groups = client.query(
        _KNOWN_NOW,
        parameters={
            "view": view,
            "organization": event["organization_id"],
            "source": event["source"],
            "event": event["event_id"],
            "time": event["event_time"].strftime("%Y-%m-%d %H:%M:%S.%f"),
        },
    ).result_rows
    if not groups:
        return event["stamped_group_id"], event["stamped_group_id"]
    group_id, group_name = groups[0]
    return group_id, group_name
