"""One look at a purchase: ask its provider, and make true here what it says.

Looks at one purchase never overlap. Who asks while one runs shares the next with all others who ask
meanwhile, since the running one may have read before what they were told happened.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from api.errors import not_found, unavailable
from api.payments.seen import Seen
from api.payments.settling import PurchaseKey, Settled, Stale, settle
from api.payments.terms import Options
from api.rules.change import Control
from api.storage.purchases import BillingProfile, ProviderEvent, Purchase, Subscription

LOOKS_AT_ONCE: Final = 6
"""Stripe takes 25 requests a second in test mode, 100 in live mode."""
STALE_MAX: Final = 5
RETRY_S: Final = 2
SAID_MAX: Final = 20
"""Differences in one line of the log."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known here of a purchase before its provider is asked."""

    key: PurchaseKey
    purchase: Purchase
    profile: BillingProfile
    subscription: Subscription | None


@dataclass(frozen=True, slots=True)
class Purchases:
    """What an event is about; several where it is about a customer."""

    keys: tuple[PurchaseKey, ...]


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Nothing of ours: another product of the same account, or nothing that moves money."""

    why: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It says that it is ours, and there is nothing here that it belongs to."""

    object_kind: str
    object_id: str
    message: str
    organization_id: str | None = None


Named = Purchases | NotOurs | Unknown


class Provider(Protocol):
    """Who is asked. Both methods may raise Refused where the provider does not answer."""

    async def named_by(self, event: ProviderEvent) -> Named:
        """Which purchases a stored webhook is about."""
        ...

    async def look(self, asked: Asked) -> Seen:
        """Everything that there is about a purchase now. What is to be ended (the profile is
        closed) is ended first."""
        ...


@dataclass
class Looker:
    """Looks at purchases, at most `LOOKS_AT_ONCE` at a time; belongs to one event loop."""

    control: Control
    providers: Mapping[str, Provider]
    options: Options
    _limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS_AT_ONCE))
    _running: dict[PurchaseKey, asyncio.Task[Settled]] = field(default_factory=dict)
    _next: dict[PurchaseKey, asyncio.Task[Settled]] = field(default_factory=dict)

    async def look(self, key: PurchaseKey) -> Settled:
        """Looks, in a look that begins after this call. Raises Refused, and what a reader raises
        about an answer that it cannot read."""
        running = self._running.get(key)
        if running is None:
            return await asyncio.shield(self._begin(key))
        if key not in self._next:
            self._next[key] = asyncio.create_task(self._after(running, key))
        return await asyncio.shield(self._next[key])

    async def stop(self) -> None:
        """Ends looks that run; what they were about is still due."""
        tasks = [*self._running.values(), *self._next.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: PurchaseKey) -> asyncio.Task[Settled]:
        task = asyncio.create_task(self._look(key))
        self._running[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: PurchaseKey, task: asyncio.Task[Settled]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            # Whoever asked may be gone; an error that nobody takes is not one more log line.
            task.exception()

    async def _after(self, running: asyncio.Task[Settled], key: PurchaseKey) -> Settled:
        await asyncio.wait([running])
        self._next.pop(key, None)
        return await self.look(key)

    async def _look(self, key: PurchaseKey) -> Settled:
        async with self._limit:
            for _ in range(STALE_MAX):
                asked = await asyncio.to_thread(self._read, key)
                provider = self.providers.get(asked.purchase.provider)
                if provider is None:
                    raise unavailable(
                        "payments_not_configured", "Its provider is not set up.", 3600
                    )
                seen = await provider.look(asked)
                try:
                    return await asyncio.to_thread(self._settle, asked, seen)
                except Stale:
                    continue
        raise unavailable("busy", "The purchase changes all the time.", RETRY_S)

    def _read(self, key: PurchaseKey) -> Asked:
        with self.control.store.read() as session:
            identity = (key.organization_id, key.purchase_id)
            purchase = session.get(Purchase, identity)
            if purchase is None:
                raise not_found("purchase", key.purchase_id, "purchase_id")
            profile = session.get(BillingProfile, (key.organization_id, purchase.profile_id))
            assert profile is not None
            return Asked(key, purchase, profile, session.get(Subscription, identity))

    def _settle(self, asked: Asked, seen: Seen) -> Settled:
        settled = settle(self.control, asked.key, asked.purchase.revision, seen, self.options)
        if settled.differences:
            log.info(
                "payment settled",
                organization=asked.key.organization_id,
                purchase=asked.key.purchase_id,
                provider=asked.purchase.provider,
                what=list(settled.differences[:SAID_MAX]),
            )
        return settled
