"""Names, which facts never carry: written by the control plane, joined by reports.

Each writer takes whole rows and may be repeated: a row replaces those of the same thing with a
smaller `version`. Blocks its thread; a write is visible to readers when it returns.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class OrganizationName:
    organization_id: str
    version: int
    name: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BillingGroupName:
    """Every version is kept (`billing_group_names`); once deleted, deleted for ever."""

    organization_id: str
    group_id: str
    version: int
    name: str
    is_deleted: bool
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MemberName:
    organization_id: str
    member_id: str
    version: int
    name: str
    email: str
    is_service_account: bool
    is_removed: bool
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class WebsiteName:
    organization_id: str
    website_id: str
    version: int
    name: str
    is_deleted: bool
    updated_at: datetime


Dimension = OrganizationName | BillingGroupName | MemberName | WebsiteName

_TABLES: Final[dict[type[Dimension], str]] = {
    OrganizationName: "organization_rows",
    BillingGroupName: "billing_group_rows",
    MemberName: "member_rows",
    WebsiteName: "website_rows",
}


def write(client: Any, rows: Sequence[Dimension]) -> None:
    """Write rows of any of the four kinds; one insert a kind."""
    for row_type, table in _TABLES.items():
        of_type = [astuple(row) for row in rows if isinstance(row, row_type)]
        if of_type:
            client.insert(table, of_type, column_names=[column.name for column in fields(row_type)])


def erase_member(client: Any, organization_id: str, member_id: str) -> None:
    """Forget a person's name and address at once; usage keeps the id and no more.

    Deleted rather than replaced, since a replaced row stays on disk until the next merge.
    """
    client.command(
        "ALTER TABLE member_rows DELETE WHERE organization_id = {organization:String} "
        "AND member_id = {member:String} SETTINGS mutations_sync = 2",
        parameters={"organization": organization_id, "member": member_id},
    )
