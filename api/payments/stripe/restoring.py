"""Purchases that Stripe knows and the database does not, made again from Stripe's metadata.

That is so after an older backup was restored. All of what was sold is in the metadata; what is not
whole, or is for an organization or a pool that is not here, is left to a person.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import stripe
from sqlalchemy.orm import Session

from api.errors import Refused
from api.payments.looking import Named, Purchases, Unknown
from api.payments.settling import PurchaseKey
from api.payments.stripe.client import ORGANIZATION, PROFILE, PURCHASE, StripeRequests
from api.payments.stripe.reading import id_of, moment
from api.reading.billing import open_profile
from api.rules.change import Actor, Change, Control
from api.rules.credits import require_pool
from api.storage.models import Organization
from api.storage.purchases import (
    PACKAGES_A_PURCHASE_MAX,
    STRIPE,
    BillingProfile,
    Package,
    Purchase,
)
from schemas.records import PoolKind

ACTOR: Final = Actor(STRIPE, "api")
ID_CHARACTERS_MAX: Final = 256
NAME_CHARACTERS_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class _Sold:
    """What the metadata says; every field is checked."""

    organization_id: str
    profile_id: str
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


@dataclass(frozen=True, slots=True)
class StripeRestoring:
    control: Control
    requests: StripeRequests

    async def restore(self, unknown: Unknown) -> Named:
        """The purchase, if it could be made again; else what was unknown, as it was."""
        session = await self._session(unknown)
        if session is None or session.metadata is None:
            return unknown
        sold = _sold(session.metadata.to_dict())
        if sold is None:
            return unknown
        is_made = await asyncio.to_thread(self._make, sold, session)
        if not is_made:
            return unknown
        return Purchases((PurchaseKey(sold.organization_id, sold.purchase_id),))

    async def _session(self, unknown: Unknown) -> stripe.checkout.Session | None:
        """The Checkout session with which what is unknown began."""
        object_id = unknown.object_id
        if unknown.object_kind == "checkout.session":
            return await self.requests.session(object_id)
        if unknown.object_kind == "subscription":
            return await self.requests.session_of({"subscription": object_id})
        if unknown.object_kind == "payment_intent":
            return await self.requests.session_of({"payment_intent": object_id})
        if unknown.object_kind == "charge":
            charge = await self.requests.charge(object_id)
            intent_id = id_of(charge.payment_intent) if charge else None
            return (
                await self.requests.session_of({"payment_intent": intent_id}) if intent_id else None
            )
        if unknown.object_kind == "invoice":
            invoice = await self.requests.invoice(object_id)
            details = invoice.parent.subscription_details if invoice and invoice.parent else None
            subscription_id = id_of(details.subscription) if details else None
            if subscription_id:
                return await self.requests.session_of({"subscription": subscription_id})
        return None

    def _make(self, sold: _Sold, session: stripe.checkout.Session) -> bool:
        with self.control.store.read() as reading:
            if reading.get(Organization, sold.organization_id) is None:
                return False
        with self.control.transaction(ACTOR, sold.organization_id) as transaction:
            change = transaction.change(sold.organization_id, while_halted=True)
            at = (sold.organization_id, sold.purchase_id)
            if change.session.get(Purchase, at) is not None:
                return True
            created_at = moment(session.created)
            if not _has_profile(change, sold, id_of(session.customer), created_at):
                return False
            _ensure_package(change.session, sold, change.now)
            change.session.add(
                Purchase(
                    organization_id=sold.organization_id,
                    id=sold.purchase_id,
                    profile_id=sold.profile_id,
                    provider=STRIPE,
                    package_id=sold.package_id,
                    package_name=sold.package_name,
                    kind=sold.kind,
                    quantity=sold.quantity,
                    package_credits_micro=sold.package_credits_micro,
                    package_price_minor=sold.package_price_minor,
                    currency=sold.currency,
                    state="created",
                    session_id=session.id,
                    bought_by=sold.bought_by,
                    created_at=created_at,
                    updated_at=change.now,
                    look_at=change.now,
                )
            )
            change.session.flush()
            subject = ("purchase", sold.purchase_id)
            change.audit("purchase.restore", subject, None, {"session_id": session.id})
        return True


def _has_profile(
    change: Change, sold: _Sold, customer_id: str | None, created_at: datetime
) -> bool:
    """Whether the profile is there, or could be made again: the pool has no other one."""
    session = change.session
    profile = session.get(BillingProfile, (sold.organization_id, sold.profile_id))
    if profile is not None:
        return profile.provider == STRIPE
    if open_profile(session, sold.organization_id, sold.pool_kind, sold.pool_id) is not None:
        return False
    try:
        require_pool(change, sold.pool_kind, sold.pool_id)
    except Refused:
        return False
    session.add(
        BillingProfile(
            organization_id=sold.organization_id,
            id=sold.profile_id,
            pool_kind=sold.pool_kind,
            pool_id=sold.pool_id,
            provider=STRIPE,
            stripe_customer_id=customer_id,
            created_at=created_at,
        )
    )
    session.flush()
    return True


def _ensure_package(session: Session, sold: _Sold, now: datetime) -> None:
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


def _sold(metadata: Mapping[str, Any]) -> _Sold | None:
    """None where anything is missing or cannot be."""
    try:
        sold = _Sold(
            metadata[ORGANIZATION],
            metadata[PROFILE],
            metadata[PURCHASE],
            cast(PoolKind, metadata["metering_pool_kind"]),
            metadata["metering_pool"],
            metadata["metering_kind"],
            int(metadata["metering_quantity"]),
            metadata["metering_package"],
            metadata["metering_package_name"],
            int(metadata["metering_package_credits_micro"]),
            int(metadata["metering_package_price_minor"]),
            metadata["metering_currency"],
            metadata["metering_bought_by"],
        )
    except (KeyError, ValueError):
        return None
    ids = (sold.organization_id, sold.profile_id, sold.purchase_id, sold.pool_id, sold.package_id)
    is_well = (
        all(0 < len(one) <= ID_CHARACTERS_MAX for one in (*ids, sold.bought_by))
        and 0 < len(sold.package_name) <= NAME_CHARACTERS_MAX
        and sold.pool_kind in ("website", "group")
        and sold.kind in ("monthly", "one_time")
        and 1 <= sold.quantity <= PACKAGES_A_PURCHASE_MAX
        and 0 < sold.package_credits_micro < 1 << 62
        and 0 < sold.package_price_minor < 1 << 62
        and len(sold.currency) == 3
    )
    return sold if is_well else None
