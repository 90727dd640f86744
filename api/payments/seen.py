"""What a provider says about one purchase, read whole and at one time; the same for Stripe and
partners. Amounts are in minor units of their currency, times aware and in UTC.

A reader makes it from a provider's answers; `api.payments.settlement` decides by it. Sums are those
that the provider states (`refunded_minor` is cumulative), never what a webhook added, and money is
never negative (ValueError): it would give more credits than were sold.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

DisputeState = Literal["open", "won", "lost"]
SessionStatus = Literal["open", "complete", "expired"]
PaymentStatus = Literal["paid", "unpaid", "no_payment_required"]
InvoiceStatus = Literal["draft", "open", "paid", "void", "uncollectible"]


@dataclass(frozen=True, slots=True)
class Dispute:
    """Money that a bank holds back. Warnings (inquiries) that hold nothing back are left out."""

    id: str
    amount_minor: int
    state: DisputeState

    def __post_init__(self) -> None:
        _refuse_negative(self.amount_minor)


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that was really paid: a charge that succeeded."""

    id: str
    paid_minor: int
    refunded_minor: int = 0
    disputes: tuple[Dispute, ...] = ()

    def __post_init__(self) -> None:
        _refuse_negative(self.paid_minor, self.refunded_minor)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an invoice; `amount_minor` is before discounts and taxes, negative for credits
    (prorations). The period is the one that it pays for, half-open."""

    id: str
    quantity: int
    amount_minor: int
    currency: str
    period_start: datetime
    period_end: datetime
    is_proration: bool = False


@dataclass(frozen=True, slots=True)
class Invoice:
    """`hosted_invoice_url` and `invoice_pdf` are None until the invoice is final."""

    id: str
    status: InvoiceStatus
    billing_reason: str
    currency: str
    amount_paid_minor: int
    created_at: datetime
    lines: tuple[Line, ...] = ()
    payments: tuple[Payment, ...] = ()
    number: str = ""
    paid_at: datetime | None = None
    hosted_invoice_url: str | None = None
    invoice_pdf: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """The Checkout of a purchase, or the partner's charge with which it began.

    `subtotal_minor` is before discounts and taxes. `has_failed`: an asynchronous payment will not
    come, or the partner declined; `message` says why.
    """

    id: str
    status: SessionStatus
    payment_status: PaymentStatus
    subtotal_minor: int
    currency: str
    quantity: int
    url: str | None = None
    expires_at: datetime | None = None
    payment_intent_id: str | None = None
    has_failed: bool = False
    message: str = ""
    payments: tuple[Payment, ...] = ()


@dataclass(frozen=True, slots=True)
class Subscription:
    """`status` is Stripe's word. The period is that of its item."""

    id: str
    status: str
    cancel_at_period_end: bool
    quantity: int
    period_start: datetime | None = None
    period_end: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything there is about one purchase. `session` is None where none was made (yet), or
    the provider has forgotten it; invoices are at most the hundred newest."""

    provider: str
    session: Session | None = None
    subscription: Subscription | None = None
    invoices: tuple[Invoice, ...] = ()
    is_customer_deleted: bool = False


def _refuse_negative(*amounts_minor: int) -> None:
    for amount_minor in amounts_minor:
        if amount_minor < 0:
            raise ValueError(f"an amount of {amount_minor}")
