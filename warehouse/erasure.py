"""Forgetting a person in what the sink wrote: usage that was sent under an address.

The member's id stands in its place. A row that the sink sends again brings the address back for as
long as `usage-rated` is retained: whoever must be sure erases once more after that.
"""

from typing import Any

from warehouse import dimensions


def erase_member(client: Any, organization_id: str, member_id: str) -> None:
    """Erases names and addresses of a member from every table; blocks until it is done."""
    dimensions.erase_member(client, organization_id, member_id)
    client.command(
        "ALTER TABLE usage_rated_rows UPDATE subject = member_id "
        "WHERE organization_id = {organization:String} AND member_id = {member:String} "
        "AND subject != member_id SETTINGS mutations_sync = 2",
        parameters={"organization": organization_id, "member": member_id},
    )
