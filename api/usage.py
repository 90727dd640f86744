"""Single usage events, and activity by day, from ClickHouse. An event is its revision 0; its
cost is the sum of all its revisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from api.spend import Spend, cents
from schemas.records import MICRO

People = Mapping[str, tuple[str, str, bool]]
"""E-mail address, name and whether it is a service account, by member id."""

ROWS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Milliseconds are inclusive; `members` None asks for all; every dimension must match."""

    organization_id: str
    start_ms: int
    end_ms: int
    members: list[str] | None
    dimensions: dict[str, str]

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
        for number, (name, value) in enumerate(sorted(self.dimensions.items())):
            condition += f" AND dimensions[{{name{number}:String}}] = {{value{number}:String}}"
            parameters |= {f"name{number}": name, f"value{number}": value}
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

    def shown(self, people: People) -> dict[str, Any]:
        email, name, is_service = people.get(self.member_id, ("", "", False))
        shown: dict[str, Any] = {
            "timestamp": str(int(self.event_time.timestamp() * 1000)),
            "userEmail": email or ("" if is_service else self.subject),
            "model": self.dimensions.get("model", self.meter),
            "kind": "Usage-based" if self.overage_micro > 0 else "Included in credits",
            "maxMode": False,
            "requestsCosts": self.quantity_micro / MICRO,
            "isTokenBasedCall": "token" in self.meter,
            "isChargeable": self.overage_micro > 0,
            "isHeadless": is_service,
            "chargedCents": cents(int(self.pico_text)),
            "meter": self.meter,
        }
        if is_service:
            shown |= {"serviceAccountId": self.member_id, "serviceAccountName": name}
        named = {
            "cloudAgentId": self.dimensions.get("cloud_agent_id"),
            "automationId": self.dimensions.get("automation_id"),
            "conversationId": self.dimensions.get("conversation_id"),
            "websiteId": self.website_id,
        }
        return shown | {key: value for key, value in named.items() if value}


@dataclass(frozen=True, slots=True)
class DayOfMember:
    """What one member did on one day of the organization's calendar."""

    day: date
    member_id: str
    events: int
    by_meter: dict[str, int]

    def shown(self, people: People) -> dict[str, Any]:
        email, _, _ = people.get(self.member_id, ("", "", False))
        midnight = datetime(self.day.year, self.day.month, self.day.day) - datetime(1970, 1, 1)  # noqa: DTZ001 - a calendar day
        return {
            "userId": self.member_id,
            "day": self.day.isoformat(),
            "date": midnight // timedelta(milliseconds=1),
            "email": email,
            "isActive": self.events > 0,
            "usageEvents": self.events,
            "quantities": {meter: micro / MICRO for meter, micro in self.by_meter.items()},
        }


def count_events(spend: Spend, wanted: EventFilter) -> int:
    condition, parameters = wanted.where()
    rows = spend.query(
        f"SELECT count() FROM usage_rated WHERE {condition} AND revision = 0",  # noqa: S608
        parameters,
    )
    return int(rows[0][0])


def list_events(spend: Spend, wanted: EventFilter, limit: int, offset: int) -> list[Event]:
    """A page of events, newest first."""
    condition, parameters = wanted.where()
    rows = spend.query(
        "SELECT event_time, any(member_id), any(subject), any(meter), any(website_id), "  # noqa: S608
        "any(dimensions), sum(quantity_micro), sum(overage_micro), "
        "toString(sum(toInt128(cost_micro) * credit_price_micro)) "
        f"FROM usage_rated WHERE {condition} GROUP BY event_time, source, event_id "
        "ORDER BY event_time DESC, source, event_id "
        "LIMIT {limit:UInt32} OFFSET {offset:UInt64}",
        {**parameters, "limit": limit, "offset": offset},
    )
    return [Event(*row) for row in rows]


def daily_usage(
    spend: Spend, organization_id: str, start_ms: int, end_ms: int, time_zone: str
) -> list[DayOfMember]:
    """Active members only, by day and then member; at most `ROWS_MAX` rows."""
    condition, parameters = EventFilter(organization_id, start_ms, end_ms, None, {}).where()
    rows = spend.query(
        "SELECT toDate(event_time, {zone:String}) AS day, member_id, "  # noqa: S608
        "countIf(revision = 0), sumMap(map(toString(meter), quantity_micro)) "
        f"FROM usage_rated WHERE {condition} GROUP BY day, member_id "
        "ORDER BY day, member_id LIMIT {most:UInt32}",
        {**parameters, "zone": time_zone, "most": ROWS_MAX},
    )
    return [DayOfMember(*row) for row in rows]
