"""The queries behind the API's answers: of the control plane's tables and of ClickHouse.

Lives here: whole lists in few statements (`tables`), the lists of `/v1` as queries (`lists`), the
billing cycle a request is about (`billing_calendar`), spend (`spend`), single events (`usage`),
what is left of credits (`balances`), and what none were left for (`overage`).
May be imported: `api.storage`, `warehouse`, `schemas`. Never: rules, HTTP. Nothing here changes
anything.
"""

from api.reading.tables import (
    Person,
    aliases,
    current_people,
    directory_names,
    former_people,
    group,
    groups,
    matching,
    member_counts,
    organization,
    sync_conflicts,
    website,
)

__all__ = [
    "Person",
    "aliases",
    "current_people",
    "directory_names",
    "former_people",
    "group",
    "groups",
    "matching",
    "member_counts",
    "organization",
    "sync_conflicts",
    "website",
]
