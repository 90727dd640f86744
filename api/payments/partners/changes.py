"""What a partner changed, for reconciliation: charges since then, each of a purchase of ours."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from api.payments.looking import Named, NotOurs, Unknown
from api.payments.partners.answers import PartnerRefused, PartnerUnclear
from api.payments.partners.provider import PURCHASE, PartnerProvider, unclear
from api.payments.settling import PurchaseKey


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
        """A partner's charge does not say what credits it was for, so nothing is made again."""
        return unknown

    async def is_still_there(self, object_kind: str, object_id: str) -> Named:
        """What was put aside is named by the purchase that it said it was for."""
        if object_kind != PURCHASE:
            return NotOurs("it is looked at with its purchase")
        try:
            found = await self.provider.client.purchase(object_id)
        except (PartnerUnclear, PartnerRefused) as error:
            raise unclear(self.provider.name, "purchase", error) from error
        if found is None or not found.charges:
            return NotOurs("the partner knows nothing of it")
        key = PurchaseKey(found.charges[0].organization_id, object_id)
        return await asyncio.to_thread(self.provider.named, key)
