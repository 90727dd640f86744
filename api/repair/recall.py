"""Asks ClickHouse for names and addresses after `metering facts import`: facts carry none."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.rules.aliases import follow_facts
from api.rules.names import fold
from api.storage.models import BillingGroup, LostAlias, Member, MemberAlias, Organization, Website
from api.storage.store import Store
from schemas import codec


@dataclass
class Recalled:
    """How many names and aliases came back, and of how many aliases only the hash is known."""

    names: int = 0
    aliases: int = 0
    unknown_aliases: int = 0


def recall_names(
    store: Store, client: Any, organization_ids: set[str], alias_secret: bytes
) -> Recalled:
    """Gives what has its id for a name the name that ClickHouse knows, and aliases whose address
    is unknown the address, where ClickHouse has it: as a member's main one, or in usage that was
    sent under it. The hash proves that it is the one.

    A name or address that is taken by now is left out. Safe to repeat; blocks its thread.
    """
    recalled = Recalled()
    with store.write() as session:
        for organization_id in sorted(organization_ids):
            recalled.names += _organization(session, client, organization_id)
            recalled.names += _groups(session, client, organization_id)
            _aliases(session, client, organization_id, alias_secret, recalled)
            recalled.names += _members(session, client, organization_id)
            recalled.names += _websites(session, client, organization_id)
    return recalled


def to_recall(store: Store) -> set[str]:
    """Organizations that an import has left without names or addresses, perhaps because
    ClickHouse was away then."""
    with store.read() as session:
        organizations = set(session.scalars(select(LostAlias.organization_id)))
        for table in (Member, BillingGroup, Website):
            organizations.update(
                session.scalars(
                    select(table.organization_id).where(table.name == table.id).distinct()
                )
            )
    return organizations


def _aliases(
    session: Session, client: Any, organization_id: str, alias_secret: bytes, recalled: Recalled
) -> None:
    unknown = follow_facts(session, organization_id, alias_secret)
    recalled.unknown_aliases += len(unknown)
    if not unknown:
        return
    statement = (
        "SELECT email FROM members WHERE organization_id = {organization:String} "
        "UNION DISTINCT SELECT subject FROM usage_rated "
        "WHERE organization_id = {organization:String} AND subject != member_id"
    )
    for (address,) in _rows(client, statement, organization_id):
        hashed = codec.alias_hash(alias_secret, fold(address))
        member_id = unknown.pop(hashed, None)
        if member_id is not None:
            session.execute(
                delete(LostAlias).where(
                    LostAlias.organization_id == organization_id, LostAlias.alias_hash == hashed
                )
            )
            session.add(
                MemberAlias(
                    organization_id=organization_id,
                    alias_folded=fold(address),
                    alias=address,
                    member_id=member_id,
                )
            )
            recalled.aliases += 1
            recalled.unknown_aliases -= 1
    session.flush()


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
    aliases = {
        row[0]: row[1]
        for row in session.execute(
            select(MemberAlias.alias_folded, MemberAlias.member_id).where(
                MemberAlias.organization_id == organization_id
            )
        )
    }
    recalled = 0
    for row in rows:
        if row.id not in known or row.erased_at is not None:
            continue
        name, email = known[row.id]
        if row.name == row.id != name:
            row.name = name
            recalled += 1
        # An address is written back only where the facts say that it is this member's.
        if row.email is None and aliases.get(fold(email)) == row.id and fold(email) not in taken:
            row.email, row.email_folded = email, fold(email)
            taken.add(fold(email))
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
