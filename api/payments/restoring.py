"""Purchases that a provider knows and the database does not, made again by the provider's record.

That is so after an older backup was restored. What is not whole, or is for an organization or a
pool that is not here, is left to a person.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from api.errors import Refused
from api.ids import new_id
from api.reading.billing import open_profile
from api.rules.change import Actor, Change, Control
from api.rules.credits import require_pool
from api.storage.models import Organization
from api.storage.purchases import PACKAGES_A_PURCHASE_MAX, BillingProfile, Package, Purchase
from schemas.records import PoolKind

ID_CHARACTERS_MAX: Final = 256
NAME_CHARACTERS_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class LostSale:
    """What was sold, as the provider kept it. `profile_id` None: whichever the pool has."""

    provider: str
    organization_id: str
    profile_id: str | None
    purchase_id: str
    pool_kind: PoolKind
    pool_id: str
    kind: str
    quantity: int
    package_id: str
    package_name: str
    package_credits_micro: int
    package_price_minor: int
    currency: str
    bought_by: str
    session_id: str
    customer_id: str | None
    created_at: datetime

    @property
    def is_whole(self) -> bool:
        """Whether everything is there and can be."""
        ids = (self.organization_id, self.purchase_id, self.pool_id, self.package_id)
        return (
            all(0 < len(one) <= ID_CHARACTERS_MAX for one in (*ids, self.bought_by))
            and (self.profile_id is None or 0 < len(self.profile_id) <= ID_CHARACTERS_MAX)
            and 0 < len(self.package_name) <= NAME_CHARACTERS_MAX
            and self.pool_kind in ("website", "group")
            and self.kind in ("monthly", "one_time")
            and 1 <= self.quantity <= PACKAGES_A_PURCHASE_MAX
            and 0 < self.package_credits_micro < 1 << 62
            and 0 < self.package_price_minor < 1 << 62
            and len(self.currency) == 3
        )


def make_again(control: Control, sold: LostSale) -> bool:
    """Whether the purchase is here now, and due to be looked at. One that is here and was paid for
    by another session is not the one that was lost: somebody paid twice."""
    with control.store.read() as reading:
        if not sold.is_whole or reading.get(Organization, sold.organization_id) is None:
            return False
    with control.transaction(Actor(sold.provider, "api"), sold.organization_id) as transaction:
        change = transaction.change(sold.organization_id, while_halted=True)
        at = (sold.organization_id, sold.purchase_id)
        former = change.session.get(Purchase, at)
        if former is not None:
            is_it = former.session_id in (None, sold.session_id)
            return former.provider == sold.provider and is_it
        profile_id = _profile(change, sold)
        if profile_id is None:
            return False
        _ensure_package(change.session, sold, change.now)
        change.session.add(
            Purchase(
                organization_id=sold.organization_id,
                id=sold.purchase_id,
                profile_id=profile_id,
                provider=sold.provider,
                package_id=sold.package_id,
                package_name=sold.package_name,
                kind=sold.kind,
                quantity=sold.quantity,
                package_credits_micro=sold.package_credits_micro,
                package_price_minor=sold.package_price_minor,
                currency=sold.currency,
                state="created",
                session_id=sold.session_id,
                bought_by=sold.bought_by,
                created_at=sold.created_at,
                updated_at=change.now,
                look_at=change.now,
            )
        )
        change.session.flush()
        subject = ("purchase", sold.purchase_id)
        change.audit("purchase.restore", subject, None, {"session_id": sold.session_id})
    return True


def _profile(change: Change, sold: LostSale) -> str | None:
    """The profile's id, where it is there or could be made again: the pool has no other one."""
    session = change.session
    if sold.profile_id is not None:
        profile = session.get(BillingProfile, (sold.organization_id, sold.profile_id))
        if profile is not None:
            return profile.id if profile.provider == sold.provider else None
    former = open_profile(session, sold.organization_id, sold.pool_kind, sold.pool_id)
    if former is not None:
        is_it = sold.profile_id is None and former.provider == sold.provider
        return former.id if is_it else None
    try:
        require_pool(change, sold.pool_kind, sold.pool_id)
    except Refused:
        return None
    profile = BillingProfile(
        organization_id=sold.organization_id,
        id=sold.profile_id or new_id("bill"),
        pool_kind=sold.pool_kind,
        pool_id=sold.pool_id,
        provider=sold.provider,
        stripe_customer_id=sold.customer_id,
        created_at=sold.created_at,
    )
    session.add(profile)
    session.flush()
    return profile.id


def _ensure_package(session: Session, sold: LostSale, now: datetime) -> None:
    """A package that is not here is made as one that is sold no more."""
    if session.get(Package, sold.package_id) is None:
        session.add(
            Package(
                id=sold.package_id,
                name=sold.package_name,
                credits_micro=sold.package_credits_micro,
                price_minor=sold.package_price_minor,
                currency=sold.currency,
                sold_one_time=sold.kind == "one_time",
                sold_monthly=sold.kind == "monthly",
                created_at=now,
                updated_at=now,
                retired_at=now,
            )
        )
        session.flush()
