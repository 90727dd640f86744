"""Restores the default price book after an import. Facts give every default price to every
organization, so the facts of any one organization show which prices the database forgot."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.rules.bounds import subject_of
from api.storage.ledgers import OutboxFact, Price, PublishingHalt
from api.storage.models import Organization
from api.storage.store import lock_price_book
from schemas import codec, topics
from schemas.records import MembershipRecord, PriceSet

ROWS_AT_ONCE: Final = 5_000
PRICE_MARK: Final = b'"price_set"'


class DefaultPrice(NamedTuple):
    meter: str
    micro_per_million_units: int
    effective_at: datetime


def default_price(record: MembershipRecord) -> DefaultPrice | None:
    """The price of the default book that this fact tells, if it tells one."""
    fact = record.fact
    if not isinstance(fact, PriceSet) or fact.book != "default":
        return None
    return DefaultPrice(fact.meter, fact.micro_per_million_units, record.effective_at)


def restore_default_book(session: Session, now: datetime) -> tuple[int, int]:
    """Puts prices that organizations were told back into the book, and tells those that were not:
    one that was made on the backup, or whose fact was never published.

    How many prices came back, and how many facts wait to be published because of that.
    """
    lock_price_book(session)
    published = _published_prices(session)
    book = [
        DefaultPrice(*row)
        for row in session.execute(
            select(Price.meter, Price.micro_per_million_units, Price.effective_at)
            .where(Price.organization_id.is_(None))
            .order_by(Price.id)
        )
    ]
    forgotten = _forgotten(book, published.values())
    for price in forgotten:
        session.add(Price(organization_id=None, created_at=now, **price._asdict()))
        session.flush()
    untold = 0
    for organization in session.scalars(
        select(Organization)
        .where(Organization.id.not_in(select(PublishingHalt.organization_id)))
        .order_by(Organization.id)
        .with_for_update()
    ):
        missing = _missing([*book, *forgotten], published[organization.id])
        for price in missing:
            _tell(session, organization, price, now)
        untold += len(missing)
    session.flush()
    return len(forgotten), untold


def _published_prices(session: Session) -> defaultdict[str, list[DefaultPrice]]:
    rows = session.execute(
        select(OutboxFact.organization_id, OutboxFact.payload)
        .where(OutboxFact.topic == topics.MEMBERSHIPS)
        .order_by(OutboxFact.organization_id, OutboxFact.version)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    published: defaultdict[str, list[DefaultPrice]] = defaultdict(list)
    for organization_id, payload in rows:
        if PRICE_MARK in payload:
            price = default_price(codec.decode_membership(payload))
            if price is not None:
                published[organization_id].append(price)
    return published


def _forgotten(
    book: list[DefaultPrice], published: Iterable[list[DefaultPrice]]
) -> list[DefaultPrice]:
    """What some organization was told more often than the book has it."""
    known = Counter(book)
    forgotten = []
    for prices in published:
        forgotten += _missing(prices, list(known.elements()))
        known |= Counter(prices)
    return forgotten


def _missing(prices: list[DefaultPrice], existing: list[DefaultPrice]) -> list[DefaultPrice]:
    """The prices that `existing` lacks, in their order; one price may stand there twice."""
    remaining, missing = Counter(existing), []
    for price in prices:
        if remaining[price]:
            remaining[price] -= 1
        else:
            missing.append(price)
    return missing


def _tell(session: Session, organization: Organization, price: DefaultPrice, now: datetime) -> None:
    organization.memberships_version += 1
    fact = PriceSet(price.meter, price.micro_per_million_units, "default")
    record = MembershipRecord(
        organization.id, organization.memberships_version, now, price.effective_at, fact
    )
    session.add(
        OutboxFact(
            organization_id=organization.id,
            topic=topics.MEMBERSHIPS,
            version=record.version,
            subject=subject_of(fact),
            payload=codec.encode(record),
            created_at=now,
        )
    )
