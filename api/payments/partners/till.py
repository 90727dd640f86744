"""A partner as a till: it charges the organization itself, so nobody is sent to a checkout."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

import structlog

from api.errors import Refused, conflict, not_found
from api.payments.looking import Looker
from api.payments.partners.answers import PartnerRefused, PartnerUnclear
from api.payments.partners.provider import PartnerProvider, partner_unavailable
from api.payments.providers import Begun, Returns
from api.payments.settling import PurchaseKey
from api.rules.change import Actor
from api.rules.purchases import charge_asked
from api.storage.purchases import BillingProfile, Purchase, Subscription
from schemas import partners as contract

log = structlog.get_logger()

BEGIN_S: Final = 45.0
"""How long a buyer waits for a partner's answer before the purchase is told to be pending."""
TAKEN_OVER: Final = timedelta(seconds=90)
"""By then the buyer's own request is over, and the inbox goes on."""


@dataclass(frozen=True, slots=True)
class PartnerTill:
    """What buyers ask of a partner; see `providers.Till`."""

    provider: PartnerProvider
    looker: Looker

    async def begin(self, organization_id: str, purchase_id: str, returns: Returns) -> Begun:
        key = PurchaseKey(organization_id, purchase_id)
        await asyncio.to_thread(self._note, key)
        try:
            async with asyncio.timeout(BEGIN_S):
                await self.looker.look(key)
        except TimeoutError:
            log.warning("partner is slow", partner=self.provider.name, purchase_id=purchase_id)
        except Refused as refused:
            if refused.code != "partner_unavailable":
                raise
        return _begun(await asyncio.to_thread(self._purchase, key))

    async def cancel(self, organization_id: str, purchase_id: str) -> None:
        await self._change(PurchaseKey(organization_id, purchase_id), "cancel")

    async def resume(self, organization_id: str, purchase_id: str) -> None:
        await self._change(PurchaseKey(organization_id, purchase_id), "resume")

    async def _change(self, key: PurchaseKey, action: Literal["cancel", "resume"]) -> None:
        purchase, subscription = await asyncio.to_thread(self._subscription, key)
        change = contract.SubscriptionChange(
            action=action,
            subscription_id=subscription.provider_id,
            purchase_id=key.purchase_id,
            organization_id=key.organization_id,
        )
        try:
            await self.provider.client.change_subscription(
                change, f"{action}:{key.purchase_id}:{purchase.revision}"
            )
        except PartnerUnclear as unclear:
            self._say(action, unclear)
            raise partner_unavailable(self.provider.name) from unclear
        except PartnerRefused as refused:
            self._say(action, refused)
            if refused.code == "unsupported":
                # It has ended there meanwhile, most often.
                await self.looker.look(key)
            raise _refused(self.provider.name, refused) from refused
        await self.looker.look(key)

    async def portal(self, organization_id: str, profile_id: str, return_url: str) -> str:
        profile = await asyncio.to_thread(self._profile, organization_id, profile_id)
        try:
            portal = await self.provider.client.portal(
                organization_id, profile.pool_kind, profile.pool_id, return_url
            )
        except PartnerUnclear as unclear:
            self._say("portal", unclear)
            raise partner_unavailable(self.provider.name) from unclear
        except PartnerRefused as refused:
            self._say("portal", refused)
            raise _refused(self.provider.name, refused) from refused
        return portal.url

    async def look(self, organization_id: str, purchase_id: str) -> None:
        await self.looker.look(PurchaseKey(organization_id, purchase_id))

    def _say(self, operation: str, why: Exception) -> None:
        log.error("partner", partner=self.provider.name, operation=operation, why=str(why))

    def _note(self, key: PurchaseKey) -> None:
        """Before the partner is asked: whatever happens to this process, somebody goes on."""
        control, actor = self.provider.control, Actor(self.provider.provider, "api")
        with control.transaction(actor, key.organization_id) as transaction:
            change = transaction.change(key.organization_id, while_halted=True)
            charge_asked(change, key.purchase_id, change.now + TAKEN_OVER)

    def _purchase(self, key: PurchaseKey) -> Purchase:
        with self.provider.control.store.read() as session:
            return session.get_one(Purchase, (key.organization_id, key.purchase_id))

    def _subscription(self, key: PurchaseKey) -> tuple[Purchase, Subscription]:
        at = (key.organization_id, key.purchase_id)
        with self.provider.control.store.read() as session:
            purchase, subscription = session.get(Purchase, at), session.get(Subscription, at)
        if purchase is None or subscription is None:
            raise not_found("subscription", key.purchase_id, "subscription_id")
        return purchase, subscription

    def _profile(self, organization_id: str, profile_id: str) -> BillingProfile:
        with self.provider.control.store.read() as session:
            profile = session.get(BillingProfile, (organization_id, profile_id))
        if profile is None:
            raise not_found("billing profile", profile_id, "profile_id")
        return profile


def _begun(purchase: Purchase) -> Begun:
    if purchase.state == "failed":
        message = purchase.message or "The partner declined the charge."
        raise Refused(402, "payment_declined", message, "", "Buy anew.")
    if purchase.state == "expired":
        raise conflict(
            "purchase_expired",
            "Nothing was charged for this purchase in time.",
            "",
            "Buy anew, with a new key.",
        )
    return Begun("succeeded" if purchase.state == "paid" else "pending")


def _refused(name: str, refused: PartnerRefused) -> Refused:
    """Its words are shown: they are for its own customer."""
    return Refused(
        502,
        "partner_refused",
        f"The partner {name!r} refuses: {refused.message or refused.code}",
        "",
        "Ask the partner.",
    )
