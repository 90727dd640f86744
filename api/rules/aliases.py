"""What the facts say of aliases: only keyed hashes; the addresses are in the database."""

from collections.abc import Iterator, Sequence
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.rules.change import Change
from api.storage.ledgers import OutboxFact
from api.storage.models import LostAlias, Member, MemberAlias
from schemas import codec, topics
from schemas.records import MemberAlias as AliasFact

ROWS_AT_ONCE: Final = 5_000
ALIAS_MARK: Final = b'"member_alias"'
"""In every fact of an alias, and in hardly any other: decoding all would take long."""


def aliases_published(session: Session, organization_id: str) -> dict[str, str]:
    """The member of each alias hash, as the pipeline has it once all facts are published."""
    owners: dict[str, str] = {}
    for fact in _alias_facts(session, organization_id):
        if not fact.removed:
            # The pipeline refuses an alias that is another member's.
            owners.setdefault(fact.alias_hash, fact.member_id)
        elif owners.get(fact.alias_hash) == fact.member_id:
            del owners[fact.alias_hash]
    return owners


def hashes_ever_published(session: Session, organization_id: str, member_id: str) -> frozenset[str]:
    """Every alias that the member ever had; what is left of the addresses of the erased."""
    return frozenset(
        fact.alias_hash
        for fact in _alias_facts(session, organization_id)
        if fact.member_id == member_id
    )


def _alias_facts(session: Session, organization_id: str) -> Iterator[AliasFact]:
    payloads = session.scalars(
        select(OutboxFact.payload)
        .where(
            OutboxFact.organization_id == organization_id, OutboxFact.topic == topics.MEMBERSHIPS
        )
        .order_by(OutboxFact.version)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    for payload in payloads:
        if ALIAS_MARK in payload:
            fact = codec.decode_membership(payload).fact
            if isinstance(fact, AliasFact):
                yield fact


def lost_alias(change: Change, folded: str) -> LostAlias | None:
    """Who has this address for the pipeline, where the database has forgotten it."""
    hashed = codec.alias_hash(change.alias_secret, folded)
    return change.session.get(LostAlias, (change.organization_id, hashed))


def lost_among(change: Change, folded: Sequence[str]) -> set[str]:
    """Those of the addresses that are lost aliases of somebody."""
    lost_hashes = set(
        change.session.scalars(
            select(LostAlias.alias_hash).where(LostAlias.organization_id == change.organization_id)
        )
    )
    if not lost_hashes:
        return set()
    return {one for one in folded if codec.alias_hash(change.alias_secret, one) in lost_hashes}


def follow_facts(session: Session, organization_id: str, alias_secret: bytes) -> dict[str, str]:
    """Makes the known addresses those of the facts: some become another member's, some nobody's.

    Returns the hashes whose address is not known here, with their members; they are kept as
    `LostAlias`, so that nobody is given an address that the pipeline would refuse.
    """
    owners = aliases_published(session, organization_id)
    rows = session.scalars(
        select(MemberAlias).where(MemberAlias.organization_id == organization_id)
    ).all()
    for row in rows:
        owner = owners.pop(codec.alias_hash(alias_secret, row.alias_folded), None)
        if owner == row.member_id:
            continue
        _forget_as_main(session, row)
        if owner is None:
            session.delete(row)
        else:
            row.member_id = owner
    session.execute(delete(LostAlias).where(LostAlias.organization_id == organization_id))
    session.add_all(
        LostAlias(organization_id=organization_id, alias_hash=hashed, member_id=member_id)
        for hashed, member_id in owners.items()
    )
    session.flush()
    return owners


def _forget_as_main(session: Session, alias: MemberAlias) -> None:
    """A member's main address is one of the member's aliases, or it is not the main one."""
    member = session.get_one(Member, (alias.organization_id, alias.member_id))
    if member.email_folded == alias.alias_folded:
        member.email = member.email_folded = None
    if member.user_name_folded == alias.alias_folded:
        member.user_name = member.user_name_folded = None
