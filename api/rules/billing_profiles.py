"""Billing profiles: who pays for a pool. *Enable Billing* makes one; until then nothing is sold."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from api.errors import conflict, not_found
from api.ids import new_id
from api.reading.billing import UNFINISHED, open_profile
from api.rules.change import Change
from api.rules.credits import require_pool
from api.storage.purchases import BillingProfile, Purchase, Subscription
from schemas.records import PoolKind


def enable_billing(
    change: Change, pool_kind: PoolKind, pool_id: str, provider: str
) -> tuple[BillingProfile, bool]:
    """The pool's profile, and whether it is new: a second time nothing happens.

    Raises Refused: 404 for an unknown or deleted pool, 409 for Unassigned, and where somebody else
    is paid already.
    """
    require_pool(change, pool_kind, pool_id)
    former = open_profile(change.session, change.organization_id, pool_kind, pool_id)
    if former is not None:
        if former.provider != provider:
            raise conflict(
                "billing_enabled_otherwise",
                f"This {pool_kind} pays by {former.provider!r} already.",
                "billing",
                "Buy as it is enabled; only the operator can change who is paid.",
                provider=former.provider,
            )
        return former, False
    profile = BillingProfile(
        organization_id=change.organization_id,
        id=new_id("bill"),
        pool_kind=pool_kind,
        pool_id=pool_id,
        provider=provider,
        created_at=change.now,
    )
    change.session.add(profile)
    change.session.flush()
    change.audit("billing.enable", (pool_kind, pool_id), None, audit_fields(profile))
    return profile, True


def customer_made(
    change: Change, profile_id: str, stripe_customer_id: str, instead_of: str | None = None
) -> BillingProfile:
    """Stripe's customer of a profile, which stays the same unless it was deleted there
    (`instead_of`). Raises Refused (409) for another."""
    profile = change.session.get(BillingProfile, (change.organization_id, profile_id))
    if profile is None:
        raise not_found("billing profile", profile_id, "profile_id")
    if profile.stripe_customer_id not in (None, instead_of, stripe_customer_id):
        raise conflict(
            "other_customer",
            f"The profile {profile_id!r} is of another customer.",
            "profile_id",
            "Look into Stripe's dashboard: two customers were made for one profile.",
        )
    if profile.stripe_customer_id != stripe_customer_id:
        before = audit_fields(profile)
        profile.stripe_customer_id = stripe_customer_id
        change.session.flush()
        subject = ("billing_profile", profile_id)
        change.audit("billing.customer", subject, before, audit_fields(profile))
    return profile


def close_profile(change: Change, pool_kind: PoolKind, pool_id: str) -> None:
    """Nothing can be bought for the pool any more; does nothing where nothing could."""
    profile = end_profile(change.session, change.organization_id, (pool_kind, pool_id), change.now)
    if profile is not None:
        after = audit_fields(profile)
        change.audit("billing.close", (pool_kind, pool_id), after | {"closed": False}, after)


def end_profile(
    session: Session, organization_id: str, pool: tuple[PoolKind, str], now: datetime
) -> BillingProfile | None:
    """Closes the pool's profile and returns it; None where there is none.

    Whatever may still bring money (a checkout that is open, a subscription) is due to be looked at:
    the look ends it with the provider, which no transaction of ours can.
    """
    profile = open_profile(session, organization_id, *pool)
    if profile is None:
        return None
    profile.closed_at = now
    live_subscriptions = select(Subscription.purchase_id).where(
        Subscription.organization_id == organization_id, Subscription.ended_at.is_(None)
    )
    session.execute(
        update(Purchase)
        .where(
            Purchase.organization_id == organization_id,
            Purchase.profile_id == profile.id,
            Purchase.state.in_(UNFINISHED) | Purchase.id.in_(live_subscriptions),
        )
        .values(look_at=now, looks_failed=0)
    )
    session.flush()
    return profile


def audit_fields(profile: BillingProfile) -> dict[str, object]:
    """What the audit log says of a profile."""
    return {
        "profile_id": profile.id,
        "provider": profile.provider,
        "stripe_customer_id": profile.stripe_customer_id,
        "closed": profile.closed_at is not None,
    }
