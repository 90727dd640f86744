"""Single usage events, and activity by day, from ClickHouse. An event is its revision 0; its
cost is the sum of all its revisions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import msgspec

from api.reading.spend import Spend, cents, quotient
from schemas.records import MICRO

People = Mapping[str, tuple[str, str, bool]]
"""E-mail address, name and whether it is a service account, by member id."""

ROWS_MAX: Final = 100_000
TOKEN_TYPES: Final = {
    "input": "inputTokens",
    "output": "outputTokens",
    "cache_write": "cacheWriteTokens",
    "cache_read": "cacheReadTokens",
}
"""Cursor's field by the value of the dimension `token_type`."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Milliseconds are inclusive; `members` None asks for all; every dimension must have one of
    its values, or any at all where none are given."""

    organization_id: str
    start_ms: int
    end_ms: int
    members: list[str] | None
    dimensions: Mapping[str, Collection[str]]

    def where(self) -> tuple[str, dict[str, Any]]:
        """A condition and its parameters; values never become part of the statement."""
        parameters: dict[str, Any] = {
            "organization": self.organization_id,
            "start": self.start_ms,
            "end": self.end_ms + 1,
        }
        condition = (
            "organization_id = {organization:String} "
            "AND event_time >= fromUnixTimestamp64Milli({start:Int64}, 'UTC') "
            "AND event_time < fromUnixTimestamp64Milli({end:Int64}, 'UTC')"
        )
        if self.members is not None:
            condition += " AND member_id IN {members:Array(String)}"
            parameters["members"] = self.members
        for number, (name, values) in enumerate(sorted(self.dimensions.items())):
            comparison = f"IN {{values{number}:Array(String)}}" if values else "!= ''"
            condition += f" AND dimensions[{{name{number}:String}}] {comparison}"
            parameters |= {f"name{number}": name, f"values{number}": sorted(values)}
        return condition, parameters


@dataclass(frozen=True, slots=True)
class Event:
    """One usage event as it was rated."""

    event_time: datetime
    member_id: str
    subject: str
    meter: str
    website_id: str
    dimensions: dict[str, str]
    quantity_micro: int
    overage_micro: int
    pico_text: str
    """Its cost in 10^-12 of the currency's unit, as ClickHouse sends 128 bits."""

    def as_json(self, people: People) -> dict[str, Any]:
        email, name, is_service = people.get(self.member_id, ("", "", False))
        charged = cents(int(self.pico_text))
        is_token_based = "token" in self.meter
        document: dict[str, Any] = {
            "timestamp": str(int(self.event_time.timestamp() * 1000)),
            "userEmail": email or ("" if is_service else self.subject),
            "model": self.dimensions.get("model", self.meter),
            "kind": "Usage-based" if self.overage_micro > 0 else "Included in credits",
            "maxMode": False,
            "requestsCosts": quotient(self.quantity_micro, MICRO),
            "isTokenBasedCall": is_token_based,
            "isChargeable": self.overage_micro > 0,
            "isHeadless": is_service,
            "chargedCents": charged,
            "meter": self.meter,
        }
        if is_token_based:
            document["tokenUsage"] = self._tokens() | {"totalCents": charged}
        if is_service:
            document |= {"serviceAccountId": self.member_id, "serviceAccountName": name}
        identity = {
            "cloudAgentId": self.dimensions.get("cloud_agent_id"),
            "automationId": self.dimensions.get("automation_id"),
            "conversationId": self.dimensions.get("conversation_id"),
            "websiteId": self.website_id,
        }
        return document | {key: value for key, value in identity.items() if value}

    def _tokens(self) -> dict[str, Any]:
        """Whole tokens, all of the kind that the dimension `token_type` says: input by default."""
        kind = TOKEN_TYPES.get(self.dimensions.get("token_type", ""), "inputTokens")
        return dict.fromkeys(TOKEN_TYPES.values(), 0) | {kind: self.quantity_micro // MICRO}


class DayOfMember(msgspec.Struct, gc=False):
    """What one member did on one day of the organization's calendar, as Cursor shows it.

    What a pipeline of usage cannot know (lines, tabs, extensions) is 0 or null, so that clients
    that expect every field find it; `usageEvents` and `quantities` by meter are ours.
    """

    userId: str
    day: str
    date: int
    email: str
    isActive: bool = False
    subscriptionIncludedReqs: int = 0
    usageBasedReqs: int = 0
    mostUsedModel: str | None = None
    usageEvents: int = 0
    quantities: dict[str, float] = {}
    totalLinesAdded: int = 0
    totalLinesDeleted: int = 0
    acceptedLinesAdded: int = 0
    acceptedLinesDeleted: int = 0
    totalApplies: int = 0
    totalAccepts: int = 0
    totalRejects: int = 0
    totalTabsShown: int = 0
    totalTabsAccepted: int = 0
    composerRequests: int = 0
    chatRequests: int = 0
    agentRequests: int = 0
    cmdkUsages: int = 0
    apiKeyReqs: int = 0
    bugbotUsages: int = 0
    applyMostUsedExtension: str | None = None
    tabMostUsedExtension: str | None = None
    clientVersion: str | None = None


def idle_day(member_id: str, email: str, day: date) -> DayOfMember:
    """A day of a member without usage."""
    since_1970 = datetime(day.year, day.month, day.day) - datetime(1970, 1, 1)  # noqa: DTZ001 - a calendar day
    return DayOfMember(member_id, day.isoformat(), since_1970 // timedelta(milliseconds=1), email)


def count_events(spend: Spend, events: EventFilter) -> int:
    condition, parameters = events.where()
    rows = spend.query(
        f"SELECT count() FROM usage_rated WHERE {condition} AND revision = 0",  # noqa: S608
        parameters,
    )
    return int(rows[0][0])


def list_events(spend: Spend, events: EventFilter, limit: int, offset: int) -> list[Event]:
    """A page of events, newest first."""
    condition, parameters = events.where()
    rows = spend.query(
        "SELECT event_time, any(member_id), any(subject), any(meter), any(website_id), "  # noqa: S608
        "any(dimensions), sum(toInt128(quantity_micro)), sum(toInt128(overage_micro)), "
        "toString(sum(toInt128(cost_micro) * credit_price_micro)) "
        f"FROM usage_rated WHERE {condition} GROUP BY event_time, source, event_id "
        "ORDER BY event_time DESC, source, event_id "
        "LIMIT {limit:UInt32} OFFSET {offset:UInt64}",
        {**parameters, "limit": limit, "offset": offset},
    )
    return [Event(*row) for row in rows]


def daily_usage(
    spend: Spend, organization_id: str, start_ms: int, end_ms: int, time_zone: str
) -> dict[tuple[str, date], DayOfMember]:
    """By member and day, in the order of days and then members: only days with usage, at most
    `ROWS_MAX`. Addresses are left empty."""
    condition, parameters = EventFilter(organization_id, start_ms, end_ms, None, {}).where()
    rows = spend.query(
        "SELECT toDate(event_time, {zone:String}) AS day, member_id, countIf(revision = 0), "  # noqa: S608
        "countIf(revision = 0 AND overage_micro > 0), "
        "topKIf(1)(if(dimensions['model'] = '', toString(meter), dimensions['model']), "
        "revision = 0), sumMap(map(toString(meter), toInt128(quantity_micro))) "
        f"FROM usage_rated WHERE {condition} GROUP BY day, member_id "
        "ORDER BY day, member_id LIMIT {most:UInt32}",
        {**parameters, "zone": time_zone, "most": ROWS_MAX},
    )
    days = {}
    for day, member_id, events, on_demand, models, quantities in rows:
        row = days[member_id, day] = idle_day(member_id, "", day)
        row.isActive = events > 0
        row.usageEvents = events
        row.usageBasedReqs, row.subscriptionIncludedReqs = on_demand, events - on_demand
        row.mostUsedModel = models[0] if models else None
        row.quantities = {meter: quotient(micro, MICRO) for meter, micro in quantities.items()}
    return days
