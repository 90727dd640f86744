"""Prices: an organization's own, and the default book that every organization is told."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from api.errors import invalid
from api.rules.bounds import refuse_too_many_default_prices
from api.rules.change import Change, Transaction
from api.storage.ledgers import Price, PublishingHalt
from api.storage.models import Organization
from api.storage.store import lock_price_book
from schemas.records import ID_LIMIT_CHARACTERS, INT64_MAX, PriceSet


@dataclass(frozen=True, slots=True)
class NewPrice:
    """Micro-credits per million units of a meter, from `effective_at` on (None: from now)."""

    meter: str
    micro_per_million_units: int
    effective_at: datetime | None = None

    def check(self) -> None:
        """Raises Refused (400) where there can be no such price."""
        if not 1 <= len(self.meter) <= ID_LIMIT_CHARACTERS:
            raise invalid(f"A meter has 1 to {ID_LIMIT_CHARACTERS} characters.", "meter")
        check_amount(self.micro_per_million_units, "micro_per_million_units", at_least=0)

    def row(self, organization_id: str | None, now: datetime) -> Price:
        """As it is kept; of the default book without an organization."""
        return Price(
            organization_id=organization_id,
            meter=self.meter,
            micro_per_million_units=self.micro_per_million_units,
            effective_at=self.effective_at or now,
            created_at=now,
        )


def set_price(change: Change, new: NewPrice) -> Price:
    """A price of this organization's own book; it beats the default one."""
    new.check()
    price = new.row(change.organization_id, change.now)
    change.session.add(price)
    change.session.flush()
    change.membership_fact(
        PriceSet(new.meter, new.micro_per_million_units, "organization"), price.effective_at
    )
    change.audit("price.set", ("meter", new.meter), None, _audit_fields(price))
    return price


def set_default_price(transaction: Transaction, new: NewPrice) -> Price:
    """A price of the default book, told to every organization in the same transaction.

    Those that are halted hear of it when `metering facts import` has repaired them.
    """
    new.check()
    lock_price_book(transaction.session)
    refuse_too_many_default_prices(transaction.session, new.meter)
    price = new.row(None, transaction.clock())
    transaction.session.add(price)
    ids = transaction.session.scalars(
        select(Organization.id)
        .where(Organization.id.not_in(select(PublishingHalt.organization_id)))
        .order_by(Organization.id)
    )
    for organization_id in list(ids):
        tell_default_price(transaction.change(organization_id), price)
    transaction.audit("price.set_default", ("meter", new.meter), None, _audit_fields(price))
    transaction.session.flush()
    return price


def tell_default_price(change: Change, price: Price) -> None:
    """The organization's pipeline learns the price, and its own audit log says from when on."""
    change.membership_fact(
        PriceSet(price.meter, price.micro_per_million_units, "default"), price.effective_at
    )
    change.audit("price.set_default", ("meter", price.meter), None, _audit_fields(price))


def _audit_fields(price: Price) -> dict[str, object]:
    return {
        "meter": price.meter,
        "micro_per_million_units": price.micro_per_million_units,
        "effective_at": price.effective_at.isoformat(),
    }


def check_amount(amount: int, where: str, at_least: int) -> None:
    """Raises Refused (400) where micro-credits cannot be of this number."""
    if not at_least <= amount <= INT64_MAX:
        raise invalid(f"An amount of {at_least} to {INT64_MAX} micro-credits is needed.", where)
