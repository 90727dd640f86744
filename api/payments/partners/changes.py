"""What a partner changed, for reconciliation: charges since then, each of a purchase of ours."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from api.payments.looking import Named, NotOurs, Purchases, Unknown
from api.payments.partners.answers import PartnerRefused, PartnerUnclear
from api.payments.partners.provider import PURCHASE, PartnerProvider, unclear
from api.payments.restoring import LostSale, make_again
from api.payments.settling import PurchaseKey
from schemas import partners as contract


@dataclass(frozen=True, slots=True)
class PartnerChanges:
    """See `reconcile.Changes`. Raises Refused where the partner does not answer clearly."""

    provider: PartnerProvider

    async def since(self, since: datetime, now: datetime) -> AsyncIterator[Named]:
        """Every purchase once, however many of its charges changed."""
        seen: set[PurchaseKey] = set()
        try:
            async for charge in self.provider.client.charges_since(since):
                key = PurchaseKey(charge.organization_id, charge.purchase_id)
                if key not in seen:
                    seen.add(key)
                    yield await asyncio.to_thread(self.provider.named, key)
        except (PartnerUnclear, PartnerRefused) as error:
            raise unclear(self.provider.name, "charges", error) from error

    def reaches(self, since: datetime, now: datetime) -> bool:
        """The contract lists every change, however old."""
        return True

    async def restore(self, unknown: Unknown) -> Named:
        """By what was asked for, where the partner has kept it."""
        if unknown.object_kind != PURCHASE:
            return unknown
        found = await self._purchase(unknown.object_id)
        sold = lost_sale(self.provider.provider, found) if found is not None else None
        if sold is None or not await asyncio.to_thread(make_again, self.provider.control, sold):
            return unknown
        return Purchases((PurchaseKey(sold.organization_id, sold.purchase_id),))

    async def is_still_there(self, object_kind: str, object_id: str) -> Named:
        """What was put aside is named by the purchase that it said it was for."""
        if object_kind != PURCHASE:
            return NotOurs("it is looked at with its purchase")
        found = await self._purchase(object_id)
        if found is None or not found.charges:
            return NotOurs("the partner knows nothing of it")
        key = PurchaseKey(found.charges[0].organization_id, object_id)
        return await asyncio.to_thread(self.provider.named, key)

    async def _purchase(self, purchase_id: str) -> contract.Purchase | None:
        try:
            return await self.provider.client.purchase(purchase_id)
        except (PartnerUnclear, PartnerRefused) as error:
            raise unclear(self.provider.name, purchase_id, error) from error


def lost_sale(provider: str, found: contract.Purchase) -> LostSale | None:
    """None where the partner kept no request, or one that cannot be: packages are all alike."""
    request = found.request
    if request is None or not found.charges or request.purchase_id != found.purchase_id:
        return None
    if request.credits_micro % request.packages or request.amount_minor % request.packages:
        return None
    first = found.charges[-1]
    is_whole = len(found.charges) < contract.CHARGES_MAX
    if not is_whole or first.organization_id != request.organization_id:
        return None
    return LostSale(
        provider,
        request.organization_id,
        None,
        request.purchase_id,
        request.pool_kind,
        request.pool_id,
        request.kind,
        request.packages,
        request.package_id,
        request.description,
        request.credits_micro // request.packages,
        request.amount_minor // request.packages,
        request.currency,
        provider,
        first.charge_id,
        None,
        first.created_at,
    )
