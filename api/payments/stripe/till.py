"""Stripe as a till, and as a provider of the inbox: what is asked for, and what is looked at.

A purchase begins with a row of ours; then the profile's customer and the Checkout session are made,
each by a request whose idempotency key is ours, and each is written down. A process that dies in
between leaves a row that is due: the look goes on where it was, with the same keys while Stripe
still knows them, and by looking for our purchase's id in the customer's sessions after that.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import stripe

from api import reading
from api.errors import Refused, conflict, not_found
from api.payments.looking import Asked, Looker, Named
from api.payments.providers import Begun, Returns
from api.payments.seen import Seen
from api.payments.settling import PurchaseKey
from api.payments.stripe.client import (
    PAGE,
    PURCHASE,
    SESSION_LIFE,
    Sale,
    StripeRequests,
)
from api.payments.stripe.errors import (
    is_about_customer,
    is_failure_of_theirs,
    is_repeated_otherwise,
    is_request_error,
)
from api.payments.stripe.naming import StripeNaming
from api.payments.stripe.reading import StripeReading, moment
from api.reading import billing
from api.rules.billing_profiles import customer_made
from api.rules.change import Actor, Control
from api.rules.purchases import session_made
from api.storage.purchases import STRIPE, BillingProfile, ProviderEvent, Purchase, Subscription

ACTOR: Final = Actor(STRIPE, "api")
SESSION_OVER: Final = timedelta(minutes=1)
LEAST_LIFE: Final = timedelta(minutes=45)
"""Stripe makes no session that ends within half an hour."""
SESSIONS_MAX: Final = 1_000
ENDED: Final = frozenset({"canceled", "incomplete_expired"})


@dataclass(frozen=True, slots=True)
class StripeProvider:
    """What the inbox asks of Stripe. Raises Refused where Stripe does not answer."""

    control: Control
    requests: StripeRequests
    returns: Returns
    """Where a browser comes back to, for sessions that nobody waited for any more."""
    is_rehearsal: bool = False
    """It only looks: nothing is made or ended at Stripe."""

    async def named_by(self, event: ProviderEvent) -> Named:
        return await StripeNaming(self.control.store, self.requests).of_event(event)

    async def look(self, asked: Asked) -> Seen:
        """Reads the purchase. What a crash left undone is done first, and what belongs to a closed
        profile is ended."""
        purchase = asked.purchase
        if purchase.session_id is None and asked.subscription is None:
            session_id = await self._session_left_behind(asked)
            if session_id is None:
                return Seen(STRIPE)
            purchase.session_id = session_id
        seen = await self._read(asked)
        is_closed = asked.profile.closed_at is not None and not self.is_rehearsal
        if is_closed and await self._end(asked, seen):
            seen = await self._read(asked)
        return seen

    async def _read(self, asked: Asked) -> Seen:
        reading = StripeReading(self.requests)
        session_id = asked.purchase.session_id
        if asked.purchase.kind == "monthly":
            subscription = asked.subscription
            return await reading.monthly(
                session_id, subscription.provider_id if subscription else None
            )
        assert session_id is not None
        return await reading.one_time(session_id)

    async def _session_left_behind(self, asked: Asked) -> str | None:
        """The session of a purchase that has none: one that was made and not written down, or,
        while there is time to pay it, a new one. None where there is and will be none."""
        purchase, profile = asked.purchase, asked.profile
        has_time = purchase.created_at + SESSION_LIFE - LEAST_LIFE > self.control.clock()
        may_make = purchase.state == "created" and profile.closed_at is None and has_time
        if may_make and not self.is_rehearsal:
            session = await open_session(self, asked.key, self.returns)
            return session.id
        found = await self.find_session(profile.stripe_customer_id, purchase)
        if found is None and purchase.state == "created" and not (may_make or self.is_rehearsal):
            # Nobody was ever given a page to pay it on.
            message = "No checkout was made for it in time."
            await asyncio.to_thread(_close, self.control, asked.key, "expired", message)
        return found.id if found else None

    async def find_session(
        self, customer_id: str | None, purchase: Purchase
    ) -> stripe.checkout.Session | None:
        """The session that has our purchase's id, among the customer's since the purchase."""
        if customer_id is None:
            return None
        since = int((purchase.created_at - timedelta(hours=1)).timestamp())
        count = 0
        async for session in self.requests.paged(
            "session.list",
            self.requests.v1.checkout.sessions.list_async(
                {"customer": customer_id, "created": {"gte": since}, "limit": PAGE}
            ),
        ):
            metadata = session.metadata.to_dict() if session.metadata else {}
            if metadata.get(PURCHASE) == purchase.id:
                return session
            count += 1
            if count >= SESSIONS_MAX:
                break
        return None

    async def _end(self, asked: Asked, seen: Seen) -> bool:
        """Ends what may still bring money for a pool that is gone; whether there was anything."""
        has_ended = False
        if seen.session is not None and seen.session.status == "open":
            await self.requests.expire_session(seen.session.id, _ms(self.control.clock()))
            has_ended = True
        subscription = seen.subscription
        if subscription is not None and subscription.status not in ENDED:
            await self.requests.cancel_now(subscription.id)
            has_ended = True
        return has_ended


@dataclass(frozen=True, slots=True)
class StripeTill:
    """What buyers ask of Stripe; see `providers.Till`."""

    provider: StripeProvider
    looker: Looker

    async def begin(self, organization_id: str, purchase_id: str, returns: Returns) -> Begun:
        key = PurchaseKey(organization_id, purchase_id)
        try:
            session = await open_session(self.provider, key, returns)
        except Refused as refused:
            if is_failure_of_theirs(refused):
                await asyncio.to_thread(_count_failure, self.provider.control, key)
            raise
        return Begun("redirect", session.url)

    async def cancel(self, organization_id: str, purchase_id: str) -> None:
        await self._set_cancel(PurchaseKey(organization_id, purchase_id), cancel=True)

    async def resume(self, organization_id: str, purchase_id: str) -> None:
        await self._set_cancel(PurchaseKey(organization_id, purchase_id), cancel=False)

    async def _set_cancel(self, key: PurchaseKey, *, cancel: bool) -> None:
        control = self.provider.control
        subscription, revision = await asyncio.to_thread(_subscription, control, key)
        turn = f"{revision}:{_ms(control.clock())}"
        try:
            await self.provider.requests.cancel_at_period_end(
                subscription.provider_id, key.purchase_id, turn, cancel=cancel
            )
        except Refused as refused:
            if not is_request_error(refused):
                raise
            # Perhaps it has ended there, and we were not told.
            await self.looker.look(key)
            subscription, _ = await asyncio.to_thread(_subscription, control, key)
            if subscription.ended_at is None:
                raise
            raise conflict(
                "subscription_ended",
                "This subscription has ended.",
                "subscription_id",
                "Buy monthly packages anew.",
            ) from refused
        await self.looker.look(key)

    async def portal(self, organization_id: str, profile_id: str, return_url: str) -> str:
        control = self.provider.control
        profile = await asyncio.to_thread(_profile, control, organization_id, profile_id)
        if profile.stripe_customer_id is None:
            raise conflict(
                "nothing_bought",
                "Nothing was bought for it yet, so there is nothing to manage.",
                "",
                "Buy first: POST …/purchases.",
            )
        requests, now_ms = self.provider.requests, _ms(control.clock())
        return await requests.portal(profile.stripe_customer_id, profile_id, return_url, now_ms)

    async def look(self, organization_id: str, purchase_id: str) -> None:
        await self.looker.look(PurchaseKey(organization_id, purchase_id))


async def open_session(
    provider: StripeProvider, key: PurchaseKey, returns: Returns
) -> stripe.checkout.Session:
    """The Checkout session of a purchase, made or found again, and written down.

    The keys are the same until Stripe has failed, since it repeats its failure to whoever uses a
    key again. A session that a failed request made all the same is found by its metadata; a
    customer that one made stays empty.
    """
    control, requests = provider.control, provider.requests
    purchase, profile = await asyncio.to_thread(_rows, control, key)
    if purchase.session_id is not None:
        session = await requests.session(purchase.session_id)
        if session is None:
            raise not_found("checkout session", purchase.session_id, "purchase_id")
        return session
    attempt = purchase.looks_failed
    customer_id = profile.stripe_customer_id or await _customer(provider, profile, purchase)
    sale = _sale(purchase, profile, customer_id, returns)
    found = None
    if attempt:
        # A request that failed may have made it; its key would repeat the failure for a day.
        found = await provider.find_session(customer_id, purchase)
    try:
        session = found or await requests.create_session(sale, attempt)
    except Refused as refused:
        if is_about_customer(refused):
            # It was deleted in Stripe's dashboard.
            customer_id = await _customer(provider, profile, purchase, customer_id)
            session = await requests.create_session(replace(sale, customer_id=customer_id), attempt)
        elif is_repeated_otherwise(refused):
            # Made before, by a process that had another address to come back to.
            again = await provider.find_session(customer_id, purchase)
            if again is None:
                raise
            session = again
        else:
            if is_request_error(refused):
                # Nothing mends that; the buyer is told why.
                await asyncio.to_thread(_close, control, key, "failed", refused.message)
            raise
    await asyncio.to_thread(_write_session, control, key, session)
    return session


async def _customer(
    provider: StripeProvider,
    profile: BillingProfile,
    purchase: Purchase,
    instead_of: str | None = None,
) -> str:
    """Makes the profile's customer. Where Stripe once failed to, and would repeat that for a day
    under the profile's key, or was asked under another name, under one of the purchase and its
    attempt."""
    organization_id = profile.organization_id
    pool = (profile.pool_kind, profile.pool_id)
    name = await asyncio.to_thread(_customer_name, provider.control, profile)
    own_key = f"{purchase.id}:{purchase.looks_failed}"
    customer_id = ""
    for attempt in ("", own_key) if not purchase.looks_failed else (own_key,):
        try:
            customer_id = await provider.requests.create_customer(
                organization_id, profile.id, pool, name, instead_of, attempt
            )
            break
        except Refused as refused:
            if attempt or not (is_failure_of_theirs(refused) or is_repeated_otherwise(refused)):
                raise

    def write() -> str:
        at = (organization_id, profile.id)
        with provider.control.transaction(ACTOR, organization_id) as transaction:
            change = transaction.change(organization_id, while_halted=True)
            former = change.session.get_one(BillingProfile, at).stripe_customer_id
            if former not in (None, instead_of):
                # Another purchase was quicker.
                return former
            customer_made(change, profile.id, customer_id, instead_of)
            return customer_id

    return await asyncio.to_thread(write)


def _customer_name(control: Control, profile: BillingProfile) -> str:
    """Whom invoices are to: the organization, and which of its groups or websites."""
    organization_id = profile.organization_id
    with control.store.read() as session:
        name = reading.organization(session, organization_id).name
        try:
            pool = billing.pool_name(session, organization_id, profile.pool_kind, profile.pool_id)
        except Refused:
            # It was deleted meanwhile.
            return name
    return f"{name}, {pool}"


def _sale(purchase: Purchase, profile: BillingProfile, customer_id: str, returns: Returns) -> Sale:
    return Sale(
        organization_id=purchase.organization_id,
        profile_id=profile.id,
        pool_kind=profile.pool_kind,
        pool_id=profile.pool_id,
        purchase_id=purchase.id,
        customer_id=customer_id,
        is_monthly=purchase.kind == "monthly",
        quantity=purchase.quantity,
        package_id=purchase.package_id,
        package_name=purchase.package_name,
        package_credits_micro=purchase.package_credits_micro,
        package_price_minor=purchase.package_price_minor,
        currency=purchase.currency,
        stripe_price_id=purchase.stripe_price_id,
        bought_by=purchase.bought_by,
        created_at=purchase.created_at,
        success_url=returns.success_url,
        cancel_url=returns.cancel_url,
    )


def _write_session(control: Control, key: PurchaseKey, session: stripe.checkout.Session) -> None:
    with control.transaction(ACTOR, key.organization_id) as transaction:
        change = transaction.change(key.organization_id, while_halted=True)
        look_at = moment(session.expires_at) + SESSION_OVER
        session_made(change, key.purchase_id, session.id, session.url, look_at)


def _close(control: Control, key: PurchaseKey, state: str, message: str) -> None:
    """A purchase for which no session was made and none will be."""
    with control.transaction(ACTOR, key.organization_id) as transaction:
        change = transaction.change(key.organization_id, while_halted=True)
        purchase = change.session.get_one(Purchase, (key.organization_id, key.purchase_id))
        if purchase.session_id is None and purchase.state == "created":
            purchase.state, purchase.message, purchase.look_at = state, message[:512], None
            purchase.revision += 1
            purchase.updated_at = change.now


def _count_failure(control: Control, key: PurchaseKey) -> None:
    with control.store.write(key.organization_id) as session:
        purchase = session.get_one(Purchase, (key.organization_id, key.purchase_id))
        purchase.looks_failed += 1


def _rows(control: Control, key: PurchaseKey) -> tuple[Purchase, BillingProfile]:
    with control.store.read() as session:
        purchase = session.get(Purchase, (key.organization_id, key.purchase_id))
        if purchase is None:
            raise not_found("purchase", key.purchase_id, "purchase_id")
        at = (key.organization_id, purchase.profile_id)
        return purchase, session.get_one(BillingProfile, at)


def _profile(control: Control, organization_id: str, profile_id: str) -> BillingProfile:
    with control.store.read() as session:
        profile = session.get(BillingProfile, (organization_id, profile_id))
    if profile is None:
        raise not_found("billing profile", profile_id, "profile_id")
    return profile


def _subscription(control: Control, key: PurchaseKey) -> tuple[Subscription, int]:
    """With how often its purchase was looked at."""
    at = (key.organization_id, key.purchase_id)
    with control.store.read() as session:
        row = session.get(Subscription, at)
        if row is None:
            raise not_found("subscription", key.purchase_id, "subscription_id")
        return row, session.get_one(Purchase, at).revision


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
