"""From Stripe's objects to `Seen`: everything there is about one purchase, fetched anew.

What of the pinned version's shapes is easily taken for something else: an invoice names its
subscription under `parent` and its money under `payments`; periods are those of subscription items;
a charge names no invoice, so that refunds and disputes are found by the payment intent.
An answer that has not the shape is an error of this look (`Unreadable`), never a guess.
https://docs.stripe.com/api/checkout/sessions/object, …/invoices/object, …/charges/object
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, cast, get_args

import stripe

from api.payments import seen
from api.payments.seen import Seen
from api.payments.stripe.client import PAGE, StripeRequests
from api.storage.purchases import STRIPE

DISPUTE_STATES: Final[dict[str, seen.DisputeState | None]] = {
    "needs_response": "open",
    "under_review": "open",
    "won": "won",
    "lost": "lost",
    "warning_needs_response": None,
    "warning_under_review": None,
    "warning_closed": None,
    "prevented": None,
}
"""Inquiries (`warning_…`) and prevented disputes hold nothing back."""
SESSION_STATUSES: Final = frozenset(get_args(seen.SessionStatus))
PAYMENT_STATUSES: Final = frozenset(get_args(seen.PaymentStatus))
INVOICE_STATUSES: Final = frozenset(get_args(seen.InvoiceStatus))
FAILED_INTENTS: Final = frozenset({"requires_payment_method", "canceled"})
ENDED_UNPAID: Final = frozenset({"incomplete_expired", "canceled"})
CHARGES_MAX: Final = 1_000
"""Of one customer, looked through at once; what is not among them is asked for by its intent."""
BEFORE_INVOICE: Final = timedelta(days=1)


class Unreadable(Exception):
    """An answer of Stripe that has not the shape of the pinned version."""


@dataclass(frozen=True, slots=True)
class StripeReading:
    """Reads purchases. Raises Refused where Stripe does not answer, and Unreadable."""

    requests: StripeRequests

    async def one_time(self, session_id: str) -> Seen:
        """A session with its payments and the invoice that Stripe made of it."""
        session = await self.requests.session(session_id)
        if session is None:
            return Seen(STRIPE)
        with _shapes(session_id):
            intent = session.payment_intent
            intent_id = id_of(intent)
            payments = await self._payments_of(intent_id) if intent_id else ()
            invoice_id = id_of(session.invoice)
            invoice = await self.requests.invoice(invoice_id) if invoice_id else None
            invoices = (await self._invoice(invoice, payments),) if invoice else ()
            return Seen(
                STRIPE,
                session_of(session, payments),
                None,
                invoices,
                _is_deleted(session.customer),
            )

    async def monthly(self, session_id: str | None, subscription_id: str | None) -> Seen:
        """A session and its subscription, with the newest hundred invoices and their payments."""
        session = await self.requests.session(session_id) if session_id else None
        if session is not None:
            subscription_id = id_of(session.subscription) or subscription_id
        subscription = (
            await self.requests.subscription(subscription_id) if subscription_id else None
        )
        listed = await self.requests.newest_invoices(subscription.id) if subscription else []
        charges = await self._charges(listed)
        with _shapes(session_id or subscription_id or ""):
            invoices = tuple([await self._paid_invoice(one, charges) for one in listed])
            return Seen(
                STRIPE,
                session_of(session, (), subscription) if session else None,
                subscription_of(subscription) if subscription else None,
                invoices,
                _is_deleted(session.customer) if session else False,
            )

    async def _charges(
        self, invoices: Sequence[stripe.Invoice]
    ) -> dict[str, list[stripe.Charge]] | None:
        """By payment intent, all that the customer paid since the oldest of several invoices: one
        request instead of one an invoice. None where that would save nothing."""
        with_money = [one for one in invoices if any(_intents(one))]
        customer_id = id_of(with_money[0].customer) if with_money else None
        if len(with_money) < 3 or customer_id is None:
            return None
        since = min(one.created for one in with_money) - int(BEFORE_INVOICE.total_seconds())
        found: dict[str, list[stripe.Charge]] = {}
        count = 0
        async for charge in self.requests.paged(
            "charge.list",
            self.requests.v1.charges.list_async(
                {"customer": customer_id, "created": {"gte": since}, "limit": PAGE}
            ),
        ):
            found.setdefault(id_of(charge.payment_intent) or "", []).append(charge)
            count += 1
            if count >= CHARGES_MAX:
                # The oldest intent may have been cut in two.
                found.pop(id_of(charge.payment_intent) or "", None)
                break
        return found

    async def _paid_invoice(
        self, invoice: stripe.Invoice, charges: dict[str, list[stripe.Charge]] | None
    ) -> seen.Invoice:
        payments: list[seen.Payment] = []
        for payment in invoice.payments.data if invoice.payments else ():
            intent_id = id_of(payment.payment.payment_intent)
            if intent_id and charges is not None and intent_id in charges:
                payments += [
                    await self._payment(one) for one in charges[intent_id] if _is_money(one)
                ]
            elif intent_id:
                payments += await self._payments_of(intent_id)
            elif payment.status == "paid":
                # Paid outside of Stripe: nothing of it can be refunded or disputed there.
                paid_minor = payment.amount_paid or 0
                payments.append(
                    seen.Payment(id_of(payment.payment.charge) or payment.id, paid_minor)
                )
        return await self._invoice(invoice, payments)

    async def _invoice(
        self, invoice: stripe.Invoice, payments: Sequence[seen.Payment]
    ) -> seen.Invoice:
        lines = list(invoice.lines.data)
        if invoice.lines.has_more:
            page = self.requests.v1.invoices.line_items.list_async(invoice.id, {"limit": PAGE})
            lines = [one async for one in self.requests.paged("line.list", page)]
        paid_at = invoice.status_transitions.paid_at
        return seen.Invoice(
            id=invoice.id,
            status=cast(seen.InvoiceStatus, _one_of(INVOICE_STATUSES, invoice.status)),
            billing_reason=str(invoice.billing_reason or ""),
            currency=invoice.currency.upper(),
            amount_paid_minor=invoice.amount_paid,
            created_at=moment(invoice.created),
            lines=tuple(map(line_of, lines)),
            payments=tuple(payments),
            number=invoice.number or "",
            paid_at=moment(paid_at) if paid_at else None,
            hosted_invoice_url=invoice.hosted_invoice_url,
            invoice_pdf=invoice.invoice_pdf,
        )

    async def _payments_of(self, intent_id: str) -> tuple[seen.Payment, ...]:
        charges = [one async for one in self.requests.charges_of_intent(intent_id)]
        return tuple([await self._payment(one) for one in charges if _is_money(one)])

    async def _payment(self, charge: stripe.Charge) -> seen.Payment:
        disputes: list[seen.Dispute] = []
        if charge.disputed:
            disputes = [
                dispute
                async for one in self.requests.disputes_of_charge(charge.id)
                if (dispute := _dispute(one, charge)) is not None
            ]
        return seen.Payment(
            charge.id,
            charge.amount_captured,
            charge.amount_refunded,
            tuple(sorted(disputes, key=lambda dispute: dispute.id)),
        )


def session_of(
    session: stripe.checkout.Session,
    payments: Sequence[seen.Payment],
    subscription: stripe.Subscription | None = None,
) -> seen.Session:
    """A complete session whose payment did not come has failed; the intent says why."""
    intent = session.payment_intent
    is_unpaid = session.status == "complete" and session.payment_status == "unpaid"
    has_failed, message = False, ""
    if isinstance(intent, stripe.PaymentIntent):
        has_failed = is_unpaid and intent.status in FAILED_INTENTS
        if has_failed and intent.last_payment_error is not None:
            message = intent.last_payment_error.message or ""
    elif subscription is not None:
        has_failed = is_unpaid and subscription.status in ENDED_UNPAID
    items = session.line_items.data if session.line_items else []
    return seen.Session(
        id=session.id,
        status=cast(seen.SessionStatus, _one_of(SESSION_STATUSES, session.status)),
        payment_status=cast(seen.PaymentStatus, _one_of(PAYMENT_STATUSES, session.payment_status)),
        subtotal_minor=session.amount_subtotal or 0,
        currency=(session.currency or "").upper(),
        quantity=sum(item.quantity or 0 for item in items),
        url=session.url,
        expires_at=moment(session.expires_at),
        payment_intent_id=id_of(intent),
        has_failed=has_failed,
        message=message,
        payments=tuple(payments),
    )


def subscription_of(subscription: stripe.Subscription) -> seen.Subscription:
    """Its period is that of its items, which have the same: each is sold alone."""
    items = subscription["items"].data
    return seen.Subscription(
        id=subscription.id,
        status=subscription.status,
        cancel_at_period_end=_ends_with_period(subscription, items),
        quantity=sum(item.quantity or 0 for item in items),
        period_start=moment(min(item.current_period_start for item in items)) if items else None,
        period_end=moment(max(item.current_period_end for item in items)) if items else None,
        ended_at=moment(subscription.ended_at) if subscription.ended_at else None,
    )


def line_of(line: stripe.InvoiceLineItem) -> seen.Line:
    parent = line.parent
    details = parent and (parent.subscription_item_details or parent.invoice_item_details)
    return seen.Line(
        id=line.id,
        quantity=line.quantity or 0,
        amount_minor=line.amount,
        currency=line.currency.upper(),
        period_start=moment(line.period.start),
        period_end=moment(line.period.end),
        is_proration=bool(details and details.proration),
    )


def _dispute(dispute: stripe.Dispute, charge: stripe.Charge) -> seen.Dispute | None:
    """In another currency than the charge's it holds back all of it, as far as can be said."""
    state = DISPUTE_STATES[dispute.status]
    is_same = dispute.currency == charge.currency
    amount_minor = dispute.amount if is_same else charge.amount_captured
    return None if state is None else seen.Dispute(dispute.id, amount_minor, state)


def _one_of(words: frozenset[str], word: str | None) -> str:
    if word not in words:
        raise ValueError(f"{word!r} is none of {', '.join(sorted(words))}")
    return word


def moment(unix_s: int) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


def id_of(field: str | stripe.StripeObject | None) -> str | None:
    """The id of what may be expanded."""
    if field is None or isinstance(field, str):
        return field or None
    return cast(str, field["id"])


def _ends_with_period(
    subscription: stripe.Subscription, items: Sequence[stripe.SubscriptionItem]
) -> bool:
    """Newer dashboards and portals say it by `cancel_at`, the end of the period, alone."""
    ends = [item.current_period_end for item in islice(items, PAGE)]
    return subscription.cancel_at_period_end or (
        subscription.cancel_at is not None and bool(ends) and subscription.cancel_at <= max(ends)
    )


def _intents(invoice: stripe.Invoice) -> Iterator[str]:
    for payment in invoice.payments.data if invoice.payments else ():
        if intent_id := id_of(payment.payment.payment_intent):
            yield intent_id


def _is_money(charge: stripe.Charge) -> bool:
    return charge.status == "succeeded" and charge.captured


def _is_deleted(customer: object) -> bool:
    return bool(customer is not None and getattr(customer, "deleted", False))


@contextmanager
def _shapes(what: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unreadable(
            f"Stripe's answer about {what} has not the known shape: {error!r}"[:300]
        ) from error
