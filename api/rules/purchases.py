"""Purchases before money: what may be bought for a pool, and what becomes of the row until the
provider has been asked. What was paid, and the grants for it, are `api.payments`' part.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy import func, select

from api.errors import conflict, invalid, not_found
from api.ids import new_id
from api.reading.billing import UNFINISHED, open_profile
from api.rules.change import Change
from api.rules.credits import require_pool
from api.rules.packages import package_to_buy
from api.storage.purchases import (
    PACKAGES_A_PURCHASE_MAX,
    BillingProfile,
    Purchase,
    Subscription,
)
from schemas.records import PoolKind

PurchaseKind = Literal["one_time", "monthly"]
UNFINISHED_MAX: Final = 20
"""Purchases of a profile that nobody has paid yet: more are a mistake, or somebody's fun."""
SUBSCRIPTIONS_MAX: Final = 100
"""Live ones of a profile; each has its own day, and is one row of the billing page."""
LOOK_AFTER: Final = timedelta(minutes=2)
"""Whoever asks the provider has by then written down what it said, or was killed."""


@dataclass(frozen=True, slots=True)
class Order:
    """One to fifty of a package, once or every month."""

    package_id: str
    kind: PurchaseKind
    quantity: int


def create_purchase(change: Change, pool_kind: PoolKind, pool_id: str, order: Order) -> Purchase:
    """A purchase in the state `created`, with what it is sold for.

    Raises Refused: 400 for a quantity out of bounds, 404 for an unknown pool or package, 409 where
    billing is not enabled, the package is not sold so, or too many purchases wait for payment.
    """
    if not 1 <= order.quantity <= PACKAGES_A_PURCHASE_MAX:
        raise invalid(f"Buy 1 to {PACKAGES_A_PURCHASE_MAX} packages at a time.", "quantity")
    require_pool(change, pool_kind, pool_id)
    profile = profile_to_pay(change, pool_kind, pool_id)
    currency = change.organization.currency
    package = package_to_buy(change.session, order.package_id, order.kind, currency)
    is_monthly = order.kind == "monthly"
    _refuse_too_many(change, profile, is_monthly=is_monthly)
    purchase = Purchase(
        organization_id=change.organization_id,
        id=new_id("buy"),
        profile_id=profile.id,
        provider=profile.provider,
        package_id=package.id,
        package_name=package.name,
        kind=order.kind,
        quantity=order.quantity,
        package_credits_micro=package.credits_micro,
        package_price_minor=package.price_minor,
        currency=package.currency,
        stripe_price_id=(
            package.stripe_monthly_price_id if is_monthly else package.stripe_one_time_price_id
        ),
        state="created",
        bought_by=change.actor.id,
        created_at=change.now,
        updated_at=change.now,
        look_at=change.now + LOOK_AFTER,
    )
    change.session.add(purchase)
    change.session.flush()
    after: dict[str, object] = {
        "pool_kind": pool_kind,
        "pool_id": pool_id,
        "package_id": package.id,
        "kind": order.kind,
        "quantity": order.quantity,
        "amount_minor": order.quantity * package.price_minor,
        "currency": package.currency,
    }
    change.audit("purchase.create", ("purchase", purchase.id), None, after)
    return purchase


def profile_to_pay(change: Change, pool_kind: PoolKind, pool_id: str) -> BillingProfile:
    """Raises Refused (409) where billing is not enabled for the pool."""
    profile = open_profile(change.session, change.organization_id, pool_kind, pool_id)
    if profile is None:
        raise conflict(
            "billing_not_enabled",
            f"Billing is not enabled for this {pool_kind}.",
            "billing",
            "Enable billing first: POST …/billing.",
        )
    return profile


def _refuse_too_many(change: Change, profile: BillingProfile, *, is_monthly: bool) -> None:
    of_profile = (
        select(func.count())
        .select_from(Purchase)
        .where(
            Purchase.organization_id == change.organization_id, Purchase.profile_id == profile.id
        )
    )
    unfinished = change.session.scalar(of_profile.where(Purchase.state.in_(UNFINISHED)))
    if (unfinished or 0) >= UNFINISHED_MAX:
        raise conflict(
            "too_many_unfinished_purchases",
            f"{UNFINISHED_MAX} purchases wait for their payment already.",
            "",
            "Pay one of them (`checkout_url` in …/purchases), or wait: they end after a day.",
        )
    live = of_profile.join(
        Subscription,
        (Subscription.organization_id == Purchase.organization_id)
        & (Subscription.purchase_id == Purchase.id),
    ).where(Subscription.ended_at.is_(None))
    if is_monthly and (change.session.scalar(live) or 0) >= SUBSCRIPTIONS_MAX:
        raise conflict(
            "too_many_subscriptions",
            f"There are {SUBSCRIPTIONS_MAX} subscriptions already.",
            "kind",
            "Buy more packages in one subscription, and cancel the small ones.",
        )


def session_made(
    change: Change,
    purchase_id: str,
    session_id: str,
    checkout_url: str | None,
    look_at: datetime | None,
) -> Purchase:
    """The provider has begun to ask for the money, under this id of its own; at `look_at` it is
    asked what became of it, whatever webhooks say.

    Where the pool is gone meanwhile, that is at once, to end it. Whatever looked before this looks
    again. A repeat changes nothing; raises Refused (409) for a second session of one purchase.
    """
    purchase = change.session.get(Purchase, (change.organization_id, purchase_id))
    if purchase is None:
        raise not_found("purchase", purchase_id, "purchase_id")
    if purchase.session_id not in (None, session_id):
        raise conflict(
            "other_session",
            f"The purchase {purchase_id!r} belongs to another session.",
            "purchase_id",
            "Look into the provider's dashboard: two sessions were made for one purchase.",
        )
    if purchase.session_id is None:
        purchase.session_id = session_id
        purchase.checkout_url = checkout_url
        key = (change.organization_id, purchase.profile_id)
        is_closed = change.session.get_one(BillingProfile, key).closed_at is not None
        purchase.look_at = change.now if is_closed else look_at
        if purchase.state == "created":
            purchase.state = "awaiting_payment"
        purchase.revision += 1
        purchase.updated_at = change.now
        change.session.flush()
        after: dict[str, object] = {"state": purchase.state, "session_id": session_id}
        change.audit("purchase.begin", ("purchase", purchase_id), {"state": "created"}, after)
    return purchase


def charge_asked(change: Change, purchase_id: str, look_at: datetime) -> None:
    """A partner is about to be asked for the charge; from `look_at` on somebody else may go on with
    it. A repeat changes nothing."""
    purchase = change.session.get(Purchase, (change.organization_id, purchase_id))
    if purchase is None:
        raise not_found("purchase", purchase_id, "purchase_id")
    if purchase.state != "created":
        return
    purchase.state = "awaiting_payment"
    purchase.look_at = look_at
    purchase.revision += 1
    purchase.updated_at = change.now
    change.session.flush()
    after: dict[str, object] = {"state": purchase.state}
    change.audit("purchase.begin", ("purchase", purchase_id), {"state": "created"}, after)


def subscription_to_change(
    change: Change, pool_kind: PoolKind, pool_id: str, purchase_id: str, *, is_to_end: bool
) -> tuple[Subscription, bool]:
    """The pool's subscription, and whether it is not yet as it is to be; who asked is noted.

    Raises Refused: 404 for one of another pool, 409 where it has ended already.
    """
    profile = profile_to_pay(change, pool_kind, pool_id)
    key = (change.organization_id, purchase_id)
    subscription = change.session.get(Subscription, key)
    purchase = change.session.get(Purchase, key)
    if subscription is None or purchase is None or purchase.profile_id != profile.id:
        raise not_found("subscription", purchase_id, "subscription_id")
    if subscription.ended_at is not None:
        raise conflict(
            "subscription_ended",
            "This subscription has ended.",
            "subscription_id",
            "Buy monthly packages anew.",
        )
    if subscription.cancel_at_period_end == is_to_end:
        return subscription, False
    action = "subscription.cancel" if is_to_end else "subscription.resume"
    before: dict[str, object] = {"cancel_at_period_end": not is_to_end}
    after: dict[str, object] = {"asked_for": {"cancel_at_period_end": is_to_end}}
    change.audit(action, ("subscription", purchase_id), before, after)
    return subscription, True
