"""Websites: properties with their own credits; each belongs to one group, or none."""

from api.errors import conflict, not_found
from api.ids import new_id
from api.rules.change import Change
from api.rules.memberships import live_group
from api.rules.names import clean_id, clean_name
from api.storage.models import Website
from schemas.records import UNASSIGNED, WebsiteAssigned


def create_website(
    change: Change, name: str, group_id: str = UNASSIGNED, website_id: str | None = None
) -> Website:
    """A new website. Raises Refused (409) where the id is taken, 404 for an unknown group."""
    chosen = clean_id(website_id, "id") if website_id else new_id("web")
    if change.session.get(Website, (change.organization_id, chosen)) is not None:
        raise conflict(
            "website_exists",
            f"There is a website {chosen!r} already.",
            "id",
            "Change that website, or choose another id.",
        )
    website = Website(
        organization_id=change.organization_id,
        id=chosen,
        name=clean_name(name),
        group_id=_group(change, group_id),
        created_at=change.now,
        updated_at=change.now,
    )
    change.session.add(website)
    change.session.flush()
    change.membership_fact(WebsiteAssigned(chosen, group_id))
    change.audit("website.create", ("website", chosen), None, audit_fields(website))
    change.dimension("website", chosen)
    return website


def get_website(change: Change, website_id: str, where: str = "website_id") -> Website:
    """Raises Refused (404) where there is none."""
    website = change.session.get(Website, (change.organization_id, website_id))
    if website is None:
        raise not_found("website", website_id, where)
    return website


def update_website(
    change: Change, website_id: str, name: str | None = None, group_id: str | None = None
) -> Website:
    """Another name, another group (`group_unassigned` for none), or both."""
    website = get_website(change, website_id)
    before = audit_fields(website)
    if name is not None and clean_name(name) != website.name:
        website.name = clean_name(name)
        change.dimension("website", website_id)
    if group_id is not None and (_group(change, group_id) != website.group_id):
        website.group_id = _group(change, group_id)
        change.membership_fact(WebsiteAssigned(website_id, group_id))
    if before != audit_fields(website):
        website.updated_at = change.now
        change.audit("website.update", ("website", website_id), before, audit_fields(website))
    return website


def _group(change: Change, group_id: str) -> str | None:
    return None if group_id == UNASSIGNED else live_group(change, group_id).id


def audit_fields(website: Website) -> dict[str, object]:
    return {"name": website.name, "group_id": website.group_id or UNASSIGNED}
