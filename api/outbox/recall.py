"""After `metering facts import`: names from ClickHouse, which has them where facts have none."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.rules.names import fold
from api.storage.models import BillingGroup, Member, MemberAlias, Organization, Website
from api.storage.store import Store


def recall_names(store: Store, client: Any, organization_ids: set[str]) -> int:
    """Gives what has its id for a name the name that ClickHouse knows; how many that were.

    Addresses come back too, with the aliases that facts have only as hashes. A name or address
    that is taken by now is left out. Safe to repeat; blocks its thread.
    """
    recalled = 0
    with store.write() as session:
        for organization_id in sorted(organization_ids):
            recalled += _organization(session, client, organization_id)
            recalled += _groups(session, client, organization_id)
            recalled += _members(session, client, organization_id)
            recalled += _websites(session, client, organization_id)
    return recalled


def _rows(client: Any, statement: str, organization_id: str) -> list[Any]:
    parameters = {"organization": organization_id}
    return list(client.query(statement, parameters=parameters).result_rows)


def _organization(session: Session, client: Any, organization_id: str) -> int:
    statement = "SELECT name FROM organizations WHERE organization_id = {organization:String}"
    row = session.get_one(Organization, organization_id)
    for (name,) in _rows(client, statement, organization_id):
        if row.name == row.id != name and name:
            row.name = name
            return 1
    return 0


def _groups(session: Session, client: Any, organization_id: str) -> int:
    statement = (
        "SELECT group_id, name FROM billing_groups WHERE organization_id = {organization:String}"
    )
    known = dict(_rows(client, statement, organization_id))
    rows = session.scalars(
        select(BillingGroup).where(
            BillingGroup.organization_id == organization_id, BillingGroup.deleted_at.is_(None)
        )
    ).all()
    taken = {row.name_folded for row in rows}
    recalled = 0
    for row in rows:
        name = known.get(row.id, "")
        if row.name == row.id and name and fold(name) not in taken:
            row.name, row.name_folded = name, fold(name)
            taken.add(row.name_folded)
            recalled += 1
    session.flush()
    return recalled


def _members(session: Session, client: Any, organization_id: str) -> int:
    statement = (
        "SELECT member_id, name, email FROM members WHERE organization_id = {organization:String}"
    )
    known = {row[0]: (row[1], row[2]) for row in _rows(client, statement, organization_id)}
    rows = session.scalars(select(Member).where(Member.organization_id == organization_id)).all()
    taken = {row.email_folded for row in rows}
    aliases = set(
        session.scalars(
            select(MemberAlias.alias_folded).where(MemberAlias.organization_id == organization_id)
        )
    )
    recalled = 0
    for row in rows:
        if row.name != row.id or row.id not in known or row.erased_at is not None:
            continue
        row.name, email = known[row.id]
        recalled += 1
        folded = fold(email)
        if email and row.email is None and folded not in taken | aliases:
            row.email, row.email_folded = email, folded
            taken.add(folded)
            session.add(
                MemberAlias(
                    organization_id=organization_id,
                    alias_folded=folded,
                    alias=email,
                    member_id=row.id,
                )
            )
    session.flush()
    return recalled


def _websites(session: Session, client: Any, organization_id: str) -> int:
    statement = (
        "SELECT website_id, name FROM websites WHERE organization_id = {organization:String}"
    )
    known = dict(_rows(client, statement, organization_id))
    recalled = 0
    for row in session.scalars(select(Website).where(Website.organization_id == organization_id)):
        if row.name == row.id and known.get(row.id):
            row.name = known[row.id]
            recalled += 1
    return recalled
