"""Writes the present names and addresses to ClickHouse.

Only the ids of what changed wait in the database, so that no copy of a name outlives its erasure.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session

from api.rules.aliases import hashes_ever_published
from api.storage.ledgers import DimensionChange
from api.storage.models import BillingGroup, Member, Organization, Website
from api.storage.store import Store
from warehouse import dimensions
from warehouse.dimensions import Dimension
from warehouse.erasure import Erased, erase_member

ROUND_NAMES: Final = 2_000
KEYS_A_STATEMENT: Final = 500

_TABLES: Final[dict[str, type[Any]]] = {
    "member": Member,
    "group": BillingGroup,
    "website": Website,
}


def write_round(store: Store, client: Any, alias_secret: bytes) -> int:
    """Writes the names that wait, at most `ROUND_NAMES` of them; how many changes that were.

    Whoever was erased is erased there too. What was written and not yet forgotten here is written
    again. Blocks its thread.
    """
    with store.read() as session:
        waiting = session.execute(
            select(
                DimensionChange.id,
                DimensionChange.organization_id,
                DimensionChange.kind,
                DimensionChange.entity_id,
            )
            .order_by(DimensionChange.id)
            .limit(ROUND_NAMES)
        ).all()
        if not waiting:
            return 0
        rows, ids = _read(session, [(row[1], row[2], row[3]) for row in waiting])
        erased = [erased_person(session, *one, alias_secret) for one in ids]
    dimensions.write(client, rows)
    for person in erased:
        erase_member(client, person)
    with store.write() as session:
        session.execute(
            delete(DimensionChange).where(DimensionChange.id.in_([row.id for row in waiting]))
        )
    return len(waiting)


def erased_person(
    session: Session, organization_id: str, member_id: str, alias_secret: bytes
) -> Erased:
    """What ClickHouse must know to forget a member: the facts have the hash of every address."""
    hashes = hashes_ever_published(session, organization_id, member_id)
    return Erased(organization_id, member_id, hashes, alias_secret)


def _read(
    session: Session, changes: Sequence[tuple[str, ...]]
) -> tuple[list[Dimension], list[tuple[str, str]]]:
    """The rows to write, and the members to erase."""
    rows: list[Dimension] = []
    erased: list[tuple[str, str]] = []
    organizations = sorted({change[0] for change in changes if change[1] == "organization"})
    for organization in session.scalars(
        select(Organization).where(Organization.id.in_(organizations))
    ):
        rows.append(
            dimensions.OrganizationName(
                organization.id,
                _version(organization),
                organization.name,
                organization.updated_at,
            )
        )
    for kind, table in _TABLES.items():
        keys = sorted({(change[0], change[2]) for change in changes if change[1] == kind})
        for start in range(0, len(keys), KEYS_A_STATEMENT):
            portion = keys[start : start + KEYS_A_STATEMENT]
            for entity in session.scalars(
                select(table).where(tuple_(table.organization_id, table.id).in_(portion))
            ):
                if isinstance(entity, Member) and entity.erased_at is not None:
                    erased.append((entity.organization_id, entity.id))
                else:
                    rows.append(_row(entity))
    return rows, erased


def _row(entity: BillingGroup | Member | Website) -> Dimension:
    if isinstance(entity, BillingGroup):
        return dimensions.BillingGroupName(
            entity.organization_id,
            entity.id,
            _version(entity),
            entity.name,
            entity.deleted_at is not None,
            entity.updated_at,
        )
    if isinstance(entity, Member):
        return dimensions.MemberName(
            entity.organization_id,
            entity.id,
            _version(entity),
            entity.name,
            entity.email or "",
            entity.kind == "service_account",
            entity.removed_at is not None,
            entity.updated_at,
        )
    return dimensions.WebsiteName(
        entity.organization_id, entity.id, _version(entity), entity.name, False, entity.updated_at
    )


def _version(entity: Organization | BillingGroup | Member | Website) -> int:
    """Grows with every change, after the restore of a backup too: the time in microseconds."""
    return int(entity.updated_at.timestamp() * 1_000_000)
