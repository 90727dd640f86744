"""What an organization chose, as far as reports need it: read from the facts applied."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from warehouse.periods import Period, parse_period

_SETTINGS_QUERY: Final = """
SELECT fact FROM facts_applied
WHERE organization_id = {organization:String} AND topic = 'memberships'
    AND type IN ('organization_created', 'organization_settings')
ORDER BY effective_at <= toDateTime64({at:String}, 6, 'UTC') DESC,
    if(effective_at <= toDateTime64({at:String}, 6, 'UTC'), 1, -1)
        * toUnixTimestamp64Micro(effective_at) DESC,
    version DESC
LIMIT 1
"""
_NAME_QUERY: Final = """
SELECT name FROM organizations WHERE organization_id = {organization:String}
"""


class BillingCalendar(msgspec.Struct, frozen=True):
    """The part of the settings that a period depends on; the defaults hold without any."""

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


def period_of(client: Any, organization_id: str, text: str) -> Period:
    """The period by the settings that held when the named month or first day began (UTC), so that
    a past report stays as it was when settings change. Raises `PeriodError`."""
    begin = parse_period(text).start
    chosen = billing_calendar(client, organization_id, begin)
    return parse_period(text, anchor_day=chosen.billing_anchor_day, time_zone=chosen.time_zone)


def billing_calendar(client: Any, organization_id: str, at: datetime) -> BillingCalendar:
    """As of a time; before the first settings, those."""
    found = client.query(
        _SETTINGS_QUERY,
        parameters={
            "organization": organization_id,
            "at": at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        },
    ).result_rows
    if not found:
        return BillingCalendar()
    return msgspec.json.decode(found[0][0], type=BillingCalendar)
