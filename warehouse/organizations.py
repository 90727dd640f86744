"""What an organization chose, as far as reports need it: read from the facts applied."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from schemas.cycles import BillingCalendar, CalendarChange

_SETTINGS_QUERY: Final = """
SELECT effective_at, version, fact FROM facts_applied
WHERE organization_id = {organization:String} AND topic = 'memberships'
    AND type IN ('organization_created', 'organization_settings')
"""
_NAME_QUERY: Final = """
SELECT name FROM organizations WHERE organization_id = {organization:String}
"""


class CalendarSettings(msgspec.Struct, frozen=True):
    """The part of the settings that cycles depend on."""

    billing_anchor_day: int = 1
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Organization:
    organization_id: str
    name: str
    is_known: bool
    """A fact or a name of it has arrived."""


def find_organization(client: Any, organization_id: str) -> Organization:
    parameters = {"organization": organization_id}
    names = client.query(_NAME_QUERY, parameters=parameters).result_rows
    facts = client.query(
        "SELECT count() FROM facts_applied_rows WHERE organization_id = {organization:String}",
        parameters=parameters,
    ).result_rows
    return Organization(
        organization_id, names[0][0] if names else "", bool(names) or bool(facts[0][0])
    )


def organization_names(client: Any) -> dict[str, str]:
    """Of all organizations whose name has arrived."""
    rows = client.query("SELECT organization_id, name FROM organizations").result_rows
    return {row[0]: row[1] for row in rows}


def billing_calendar(client: Any, organization_id: str) -> BillingCalendar:
    """By all settings that were applied; months in UTC before the first of them."""
    rows = client.query(_SETTINGS_QUERY, parameters={"organization": organization_id}).result_rows
    return BillingCalendar(calendar_change(*row) for row in rows)


def calendar_change(effective_at: datetime, version: int, fact: str) -> CalendarChange:
    settings = msgspec.json.decode(fact, type=CalendarSettings)
    return CalendarChange(effective_at, version, settings.billing_anchor_day, settings.time_zone)
