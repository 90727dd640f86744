"""What `report credits` shows: the pools of an organization with their names, and their grants."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from schemas.records import PoolKind
from warehouse.balances import GrantBalance, PoolFigures, list_grants, list_pools
from warehouse.organizations import Organization, find_organization

_NAMES: Final = """
SELECT 'group', group_id, name, is_deleted FROM billing_groups
WHERE organization_id = {organization:String}
UNION ALL
SELECT 'website', website_id, name, is_deleted FROM websites
WHERE organization_id = {organization:String}
"""
_FACTS: Final = """
SELECT count() FROM facts_applied_rows
WHERE organization_id = {organization:String} AND {column:Identifier} = {pool:String}
"""


@dataclass(frozen=True, slots=True)
class NamedPool:
    """`name` is empty where none is known."""

    figures: PoolFigures
    name: str
    is_deleted: bool
    grants: tuple[GrantBalance, ...]


@dataclass(frozen=True, slots=True)
class CreditsReport:
    organization: Organization
    at: datetime
    pools: tuple[NamedPool, ...]
    is_known: bool
    """Of the one pool that was asked for: whether anything of it has arrived."""


def credits_report(
    client: Any,
    organization_id: str,
    at: datetime,
    *,
    pool_kind: PoolKind | None = None,
    pool_id: str | None = None,
    with_grants: bool = False,
) -> CreditsReport:
    """The pools that ever had credits, as of now (`at`); of a pool that is named, also without."""

    def query(statement: str, parameters: Any) -> Any:
        return client.query(statement, parameters=dict(parameters)).result_rows

    of_pool: dict[str, Any] = {"pool_kind": pool_kind, "pool_id": pool_id}
    figures = list_pools(query, organization_id, at, **of_pool)
    grants: dict[tuple[str, str], list[GrantBalance]] = {}
    for grant in list_grants(query, organization_id, **of_pool) if with_grants else ():
        grants.setdefault((grant.pool_kind, grant.pool_id), []).append(grant)
    names = {
        (kind, name_id): (name, bool(is_deleted))
        for kind, name_id, name, is_deleted in query(_NAMES, {"organization": organization_id})
    }
    is_known = bool(figures)
    if pool_kind is not None and pool_id is not None and not figures:
        is_known = (pool_kind, pool_id) in names or _has_facts(
            query, organization_id, pool_kind, pool_id
        )
        figures = [PoolFigures(pool_kind, pool_id)]
    pools = []
    for pool in figures:
        at_pool = (pool.pool_kind, pool.pool_id)
        name, is_deleted = names.get(at_pool, ("", False))
        pools.append(NamedPool(pool, name, is_deleted, tuple(grants.get(at_pool, ()))))
    return CreditsReport(find_organization(client, organization_id), at, tuple(pools), is_known)


def _has_facts(query: Any, organization_id: str, pool_kind: PoolKind, pool_id: str) -> bool:
    parameters = {
        "organization": organization_id,
        "column": f"{pool_kind}_id",
        "pool": pool_id,
    }
    return bool(query(_FACTS, parameters)[0][0])
