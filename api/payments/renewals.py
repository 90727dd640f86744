"""Renewals ahead of their invoice, so that no midnight cuts anybody off.

Stripe drafts a renewal's invoice when the period begins, and its webhook takes its time. So shortly
before a live subscription's period ends, the next period's credits are put in place as awaiting
payment; the invoice's line adopts them, and a look revokes what is never paid. A subscription that
is not to be renewed, or whose next invoice Stripe would not make, gets nothing.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import select

from api.errors import Refused
from api.payments.monthly import LIVE
from api.payments.settling import PurchaseKey, place_renewal
from api.payments.stripe.client import StripeRequests
from api.payments.stripe.reading import Unreadable, line_of
from api.rules.change import Control
from api.storage.purchases import STRIPE, BoughtGrant, Subscription

log = structlog.get_logger()

AT_ONCE: Final = 4
DUE_MAX: Final = 5_000
A_ROUND_MAX: Final = 200
AGAIN: Final = timedelta(minutes=5)
"""After a failure, and after an answer that there is nothing to place."""
REMEMBERED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Due:
    key: PurchaseKey
    subscription_id: str
    period_end: datetime


@dataclass
class Renewals:
    """Places renewals of Stripe's subscriptions within `lead` of the end of their period."""

    control: Control
    requests: StripeRequests
    lead: timedelta
    _not_before: dict[PurchaseKey, datetime] = field(default_factory=dict)

    async def place_due(self) -> list[str]:
        """Places what is due; the ids of the new grants. Failures are logged and tried again."""
        now = self.control.clock()
        due = [
            each
            for each in await asyncio.to_thread(self._due, now)
            if self._not_before.get(each.key, now) <= now
        ][:A_ROUND_MAX]
        limit = asyncio.Semaphore(AT_ONCE)

        async def place(each: _Due) -> str | None:
            async with limit:
                return await self._place(each)

        placed = await asyncio.gather(*map(place, due))
        return [grant_id for grant_id in placed if grant_id is not None]

    async def _place(self, due: _Due) -> str | None:
        grant_id = None
        try:
            if end := await self._next_end(due):
                grant_id = await asyncio.to_thread(
                    place_renewal,
                    self.control,
                    due.key,
                    due.subscription_id,
                    due.period_end,
                    end,
                )
        except (Refused, Unreadable) as error:
            log.warning(
                "a renewal was not placed", purchase_id=due.key.purchase_id, what=str(error)
            )
        if grant_id is None:
            if len(self._not_before) >= REMEMBERED_MAX:
                self._not_before.clear()
            self._not_before[due.key] = self.control.clock() + AGAIN
        return grant_id

    async def _next_end(self, due: _Due) -> datetime | None:
        """When the next period ends, as Stripe would invoice it."""
        invoice = await self.requests.next_invoice(due.subscription_id)
        if invoice is None:
            return None
        ends = [
            line.period_end
            for line in map(line_of, invoice.lines.data)
            if line.period_start == due.period_end and not line.is_proration
        ]
        return max(ends) if ends else None

    def _due(self, now: datetime) -> list[_Due]:
        """Subscriptions whose period ends soon and whose next one has no grant."""
        has_grant = (
            select(BoughtGrant.grant_id)
            .where(
                BoughtGrant.provider == STRIPE,
                BoughtGrant.subscription_id == Subscription.provider_id,
                BoughtGrant.period_start == Subscription.current_period_end,
            )
            .exists()
        )
        with self.control.store.read() as session:
            rows = session.scalars(
                select(Subscription)
                .where(
                    Subscription.provider == STRIPE,
                    Subscription.status.in_(LIVE),
                    Subscription.ended_at.is_(None),
                    ~Subscription.cancel_at_period_end,
                    Subscription.current_period_end > now,
                    Subscription.current_period_end <= now + self.lead,
                    ~has_grant,
                )
                .order_by(Subscription.current_period_end)
                .limit(DUE_MAX)
            ).all()
        return [
            _Due(PurchaseKey(row.organization_id, row.purchase_id), row.provider_id, end)
            for row in rows
            if (end := row.current_period_end) is not None
        ]
