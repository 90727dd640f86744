"""The table of billing cycles, for SQL: which organizations' cycles must be written again, and the
rows to write.

Pure. The cycles themselves are those of `schemas.cycles`; the sink asks and writes, because it is
there wherever facts come into ClickHouse, also without a control plane.
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from schemas.codec import encode
from schemas.cycles import BillingCalendar, PeriodError
from warehouse.organizations import calendar_change

TABLE: Final = "billing_cycle_rows"
BEFORE: Final = timedelta(days=2 * 366)
"""How long before the first settings cycles begin: events may be older than their organization."""
AHEAD: Final = timedelta(days=3 * 366)
ORGANIZATIONS_MAX: Final = 500
"""What `OUTDATED` asks for at a time."""

OUTDATED: Final = """
SELECT
    organization_id,
    groupUniqArray((toString(toUnixTimestamp64Micro(effective_at)), toString(version), fact))
        AS settings
FROM facts_applied_rows
WHERE topic = 'memberships' AND type IN ('organization_created', 'organization_settings')
GROUP BY organization_id
HAVING (organization_id, length(settings)) NOT IN
(
    SELECT organization_id, settings_facts FROM billing_cycle_rows FINAL
    WHERE last_ends_at > now64(6) + INTERVAL 2 YEAR
)
ORDER BY organization_id
LIMIT 500
FORMAT JSONEachRow
"""
"""Organizations whose settings changed, or whose cycles end too soon, with all their settings."""

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00Z")


class _Organization(msgspec.Struct):
    organization_id: str
    settings: list[tuple[str, str, str]]


class CycleRow(msgspec.Struct):
    """A row of `billing_cycle_rows`."""

    organization_id: str
    settings_facts: int
    cycles: list[tuple[datetime, datetime, str]]
    last_ends_at: datetime
    computed_at: datetime


_decode = msgspec.json.Decoder(_Organization).decode_lines


def cycle_rows(answer: str, now: datetime) -> tuple[list[bytes], list[str]]:
    """The rows to write for an answer to `OUTDATED`, and what is wrong with each organization that
    is left out: its time zone is one that this machine does not know."""
    rows, problems = [], []
    for organization in _decode(answer):
        try:
            rows.append(encode(_row(organization, now)))
        except PeriodError as error:
            problems.append(f"organization {organization.organization_id!r}: {error}")
    return rows, problems


def _row(organization: _Organization, now: datetime) -> CycleRow:
    changes = [
        calendar_change(_EPOCH + timedelta(microseconds=int(micro)), int(version), fact)
        for micro, version, fact in organization.settings
    ]
    first = min(now, *(change.effective_at for change in changes))
    cycles = BillingCalendar(changes).cycles_between(max(first - BEFORE, _EPOCH), now + AHEAD)
    return CycleRow(
        organization.organization_id,
        len(organization.settings),
        [(cycle.start, cycle.end, cycle.time_zone) for cycle in cycles],
        cycles[-1].end,
        now,
    )
