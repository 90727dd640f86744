"""Purchases that Stripe knows and the database does not, made again from Stripe's metadata, in
which is all of what was sold; which of them are is decided in `api.payments.restoring`."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import stripe

from api.payments.looking import Named, Purchases, Unknown
from api.payments.restoring import LostSale, make_again
from api.payments.settling import PurchaseKey
from api.payments.stripe.client import ORGANIZATION, PROFILE, PURCHASE, StripeRequests
from api.payments.stripe.reading import id_of, moment
from api.rules.change import Control
from api.storage.purchases import STRIPE
from schemas.records import PoolKind


@dataclass(frozen=True, slots=True)
class StripeRestoring:
    control: Control
    requests: StripeRequests

    async def restore(self, unknown: Unknown) -> Named:
        """The purchase, if it could be made again; else what was unknown, as it was."""
        session = await self._session(unknown)
        if session is None or session.metadata is None:
            return unknown
        sold = _sold(session.metadata.to_dict(), session)
        if sold is None or not await asyncio.to_thread(make_again, self.control, sold):
            return unknown
        return Purchases((PurchaseKey(sold.organization_id, sold.purchase_id),))

    async def _session(self, unknown: Unknown) -> stripe.checkout.Session | None:
        """The Checkout session with which what is unknown began."""
        object_id = unknown.object_id
        if unknown.object_kind == "checkout.session":
            return await self.requests.session(object_id)
        if unknown.object_kind == "subscription":
            return await self.requests.session_of({"subscription": object_id})
        if unknown.object_kind == "payment_intent":
            return await self.requests.session_of({"payment_intent": object_id})
        if unknown.object_kind == "charge":
            charge = await self.requests.charge(object_id)
            intent_id = id_of(charge.payment_intent) if charge else None
            return (
                await self.requests.session_of({"payment_intent": intent_id}) if intent_id else None
            )
        if unknown.object_kind == "invoice":
            invoice = await self.requests.invoice(object_id)
            details = invoice.parent.subscription_details if invoice and invoice.parent else None
            subscription_id = id_of(details.subscription) if details else None
            if subscription_id:
                return await self.requests.session_of({"subscription": subscription_id})
        return None


def _sold(metadata: Mapping[str, Any], session: stripe.checkout.Session) -> LostSale | None:
    """None where anything is missing."""
    try:
        return LostSale(
            STRIPE,
            metadata[ORGANIZATION],
            metadata[PROFILE],
            metadata[PURCHASE],
            cast(PoolKind, metadata["metering_pool_kind"]),
            metadata["metering_pool"],
            metadata["metering_kind"],
            int(metadata["metering_quantity"]),
            metadata["metering_package"],
            metadata["metering_package_name"],
            int(metadata["metering_package_credits_micro"]),
            int(metadata["metering_package_price_minor"]),
            metadata["metering_currency"],
            metadata["metering_bought_by"],
            session.id,
            id_of(session.customer),
            moment(session.created),
        )
    except (KeyError, ValueError):
        return None
