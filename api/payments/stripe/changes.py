"""Everything that Stripe changed since a time, and which purchases of ours it is about.

Two ways, because neither is enough: the list of events (Stripe keeps thirty days) tells of changes
to old objects, the lists of objects tell of new ones whatever became of their events. Further back
than the events, every purchase that may still change is looked at.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from api.payments.looking import Named, NotOurs, Unknown
from api.payments.stripe.client import PAGE, StripeRequests
from api.payments.stripe.naming import CUSTOMER_DELETED, OBJECTS, StripeNaming, Thing
from api.payments.stripe.restoring import StripeRestoring

EVENTS_KEPT: Final = timedelta(days=29)
EVENT_TYPES: Final = (
    "checkout.session.completed",
    "checkout.session.expired",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "invoice.created",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.voided",
    "invoice.marked_uncollectible",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "charge.refunded",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    CUSTOMER_DELETED,
)
"""What changes an old object; Stripe takes twenty types at most."""
SEEN_MAX: Final = 200_000


@dataclass(frozen=True, slots=True)
class StripeChanges:
    """Stripe, as reconciliation asks it. Raises Refused where it does not answer."""

    requests: StripeRequests
    naming: StripeNaming
    restoring: StripeRestoring

    async def since(self, since: datetime, now: datetime) -> AsyncIterator[Named]:
        """What the changed objects name, each object once; nothing of what is not ours."""
        asked: set[tuple[str, str]] = set()
        async for thing in self._things(since, now):
            identity = (str(thing.get("object", "")), str(thing.get("id", "")))
            if identity in asked:
                continue
            if len(asked) < SEEN_MAX:
                asked.add(identity)
            if identity[0] == "customer":
                named = await self.naming.of_customer(identity[1])
            elif identity[0] == "charge":
                named = await self.naming.of_charge(thing)
            else:
                named = await self.naming.of(thing)
            if not isinstance(named, NotOurs):
                yield named

    def reaches(self, since: datetime, now: datetime) -> bool:
        """Whether `since` tells of every change; else purchases are to be looked at one by one."""
        return since > now - EVENTS_KEPT

    async def restore(self, unknown: Unknown) -> Named:
        return await self.restoring.restore(unknown)

    async def is_still_there(self, object_kind: str, object_id: str) -> Named:
        """What an object that was put aside names today."""
        thing = await self._thing(object_kind, object_id)
        if thing is None:
            return NotOurs("it is gone")
        is_charge = object_kind == "charge"
        return await (self.naming.of_charge(thing) if is_charge else self.naming.of(thing))

    async def _things(self, since: datetime, now: datetime) -> AsyncIterator[Thing]:
        created: Any = {"gte": int(since.timestamp())}
        v1 = self.requests.v1
        if self.reaches(since, now):
            listed = v1.events.list_async(
                {"created": created, "types": list(EVENT_TYPES), "limit": PAGE}
            )
            async for event in self.requests.paged("event.list", listed):
                thing = event.data.object.to_dict()
                if thing.get("object") in OBJECTS or event.type == CUSTOMER_DELETED:
                    yield thing
        lists: Any = (
            ("session.list", v1.checkout.sessions.list_async, {}),
            ("subscription.list", v1.subscriptions.list_async, {"status": "all"}),
            ("invoice.list", v1.invoices.list_async, {}),
            ("charge.list", v1.charges.list_async, {}),
            ("refund.list", v1.refunds.list_async, {}),
            ("dispute.list", v1.disputes.list_async, {}),
        )
        for operation, ask, more in lists:
            first = ask({"created": created, "limit": PAGE, **more})
            async for found in self.requests.paged(operation, first):
                yield found.to_dict()

    async def _thing(self, object_kind: str, object_id: str) -> Thing | None:
        v1 = self.requests.v1
        ways: Any = {
            "checkout.session": v1.checkout.sessions.retrieve_async,
            "subscription": v1.subscriptions.retrieve_async,
            "invoice": v1.invoices.retrieve_async,
            "payment_intent": v1.payment_intents.retrieve_async,
            "charge": v1.charges.retrieve_async,
            "refund": v1.refunds.retrieve_async,
            "dispute": v1.disputes.retrieve_async,
        }
        if object_kind not in ways:
            return None
        found: Any = await self.requests.find("object.read", ways[object_kind](object_id))
        return None if found is None else found.to_dict()
