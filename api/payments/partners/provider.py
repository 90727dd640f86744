"""A partner as a provider of the inbox: which purchase a webhook is about, and what is true of it.

A look always asks first what the partner knows of the purchase. Where that is nothing and the
purchase still waits, the charge is asked for, with the key that it always has: so a buyer's
request, a repeat after a time-out and a process that goes on with what another left are the same.
"""

import asyncio
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from api.errors import Refused, unavailable
from api.payments.looking import Asked, Named, NotOurs, Purchases, Unknown
from api.payments.partners.answers import PartnerRefused, PartnerUnclear
from api.payments.partners.client import PartnerClient
from api.payments.partners.reading import Expected, never_charged, seen_of
from api.payments.seen import Seen
from api.payments.settling import PurchaseKey
from api.rules.change import Control
from api.storage.purchases import ProviderEvent, Purchase
from schemas import partners as contract

log = structlog.get_logger()

CHARGED_WITHIN: Final = timedelta(hours=24)
"""After that nobody expects to be charged any more; what the partner did by then still counts."""
UNFINISHED: Final = frozenset({"created", "awaiting_payment"})
RETRY_S: Final = 10
PURCHASE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What an id of ours may be made of: nothing that means something in a path."""
PURCHASE: Final = "purchase"
"""The kind of object that everything of a partner is put aside under."""
DECLINED: Final = "The partner does not take this charge."
NOT_IN_TIME: Final = "The partner was not reached in time, and nothing was charged."


@dataclass(frozen=True, slots=True)
class PartnerProvider:
    """What the inbox asks of a partner. Raises Refused where its answer is not clear."""

    control: Control
    client: PartnerClient
    is_rehearsal: bool = False
    """Then nothing is asked for that changes anything."""

    @property
    def name(self) -> str:
        return self.client.partner.name

    @property
    def provider(self) -> str:
        return self.client.partner.provider

    async def named_by(self, event: ProviderEvent) -> Named:
        """By the ids of ours that the webhook carries."""
        try:
            told = msgspec.json.decode(event.body, type=contract.Webhook)
        except msgspec.DecodeError:
            return NotOurs(f"this version does not know {event.type}")
        key = PurchaseKey(told.data.organization_id, told.data.purchase_id)
        named = await asyncio.to_thread(self.named, key)
        return await self._known(named) if isinstance(named, Unknown) else named

    async def _known(self, unknown: Unknown) -> Named:
        """A claim alone alarms nobody: the partner itself must know of a charge for it."""
        purchase_id = unknown.object_id
        if PURCHASE_ID.fullmatch(purchase_id) is None:
            return NotOurs("it names no purchase")
        try:
            found = await self.client.purchase(purchase_id)
        except (PartnerUnclear, PartnerRefused) as error:
            raise unclear(self.name, purchase_id, error) from error
        if found is None or not found.charges:
            return NotOurs("the partner knows nothing of it")
        return unknown

    def named(self, key: PurchaseKey) -> Named:
        """The purchase of these ids, where it is one of this partner's."""
        with self.control.store.read() as session:
            purchase = session.get(Purchase, (key.organization_id, key.purchase_id))
        if purchase is not None and purchase.provider == self.provider:
            return Purchases((key,))
        message = (
            f"{self.name} has charged {key.organization_id!r} for purchase {key.purchase_id!r}, "
            "which is not here."
        )
        return Unknown(PURCHASE, key.purchase_id, message[:1024])

    async def look(self, asked: Asked) -> Seen:
        """Everything that the partner says about a purchase now."""
        try:
            return await self._look(asked)
        except (PartnerUnclear, PartnerRefused) as error:
            raise unclear(self.name, asked.purchase.id, error) from error

    async def _look(self, asked: Asked) -> Seen:
        found = await self.client.purchase(asked.purchase.id)
        if found is None:
            if asked.purchase.session_id is not None or asked.purchase.state not in UNFINISHED:
                # Nothing was charged, or the partner has forgotten what was.
                return Seen(self.provider)
            if self.is_rehearsal:
                return Seen(self.provider)
            refusal = await self._charge(asked)
            found = await self.client.purchase(asked.purchase.id)
            if found is None:
                if refusal is None:
                    raise PartnerUnclear("it has charged, and does not know the purchase")
                return refusal
        found = await self._ended(asked, found)
        purchase = asked.purchase
        expected = Expected(purchase.organization_id, purchase.kind, purchase.session_id)
        return seen_of(self.provider, found, expected)

    async def _charge(self, asked: Asked) -> Seen | None:
        """Asks for the charge; what is then seen if there is and will be none."""
        is_late = self.control.clock() > asked.purchase.created_at + CHARGED_WITHIN
        if is_late or asked.profile.closed_at is not None:
            return never_charged(self.provider, NOT_IN_TIME, has_failed=False)
        try:
            await self.client.charge(charge_request(asked))
        except PartnerRefused as refused:
            log.error(
                "partner refused a charge",
                partner=self.name,
                purchase_id=asked.purchase.id,
                why=str(refused),
            )
            return never_charged(self.provider, DECLINED, has_failed=True)
        return None

    async def _ended(self, asked: Asked, found: contract.Purchase) -> contract.Purchase:
        """What belongs to a closed profile is not to be renewed any more."""
        subscription = found.subscription
        if (
            asked.profile.closed_at is None
            or subscription is None
            or subscription.status == "canceled"
            or self.is_rehearsal
        ):
            return found
        change = contract.SubscriptionChange(
            action="cancel",
            subscription_id=subscription.subscription_id,
            purchase_id=asked.purchase.id,
            organization_id=asked.purchase.organization_id,
            at_period_end=False,
        )
        await self.client.change_subscription(change, f"end:{asked.purchase.id}")
        return await self.client.purchase(asked.purchase.id) or found


def charge_request(asked: Asked) -> contract.ChargeRequest:
    """The same bytes whenever it is asked: of what was sold, nothing changes any more."""
    purchase, profile = asked.purchase, asked.profile
    return msgspec.convert(
        {
            "purchase_id": purchase.id,
            "organization_id": purchase.organization_id,
            "pool_kind": profile.pool_kind,
            "pool_id": profile.pool_id,
            "kind": purchase.kind,
            "package_id": purchase.package_id,
            "description": purchase.package_name,
            "packages": purchase.quantity,
            "credits_micro": purchase.quantity * purchase.package_credits_micro,
            "amount_minor": purchase.quantity * purchase.package_price_minor,
            "currency": purchase.currency.upper(),
        },
        contract.ChargeRequest,
    )


def unclear(name: str, about: str, error: Exception) -> Refused:
    """What is wrong goes into the log, and 503 to whoever asked."""
    log.warning("partner unclear", partner=name, about=about, why=str(error))
    return partner_unavailable(name)


def partner_unavailable(name: str) -> Refused:
    """503: what the partner said, or that it said nothing, is in the log and not for everybody."""
    return unavailable(
        "partner_unavailable", f"The partner {name!r} gives no clear answer now.", RETRY_S
    )
