"""Credits that are bought: what is sold, who pays, what was bought, and what the providers said.

A *provider* is `stripe` or `partner:<its name>`. Amounts of money are in minor units of a
currency (`*_minor`), credits in micro-credits. The grants themselves are in `api.storage.ledgers`.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from api.storage.base import ID, NAME, SERIAL, Base
from api.storage.models import of_organization

STRIPE: Final = "stripe"
PACKAGES_A_PURCHASE_MAX: Final = 50
OPEN: Final = text("closed_at IS NULL")
URL: Final = String(2048)
PROVIDER: Final = String(64)


class Package(Base):
    """What the operator sells. A purchase keeps what it was sold for, so this may change."""

    __tablename__ = "packages"
    __table_args__ = (
        CheckConstraint("credits_micro > 0", name="credits"),
        CheckConstraint("price_minor > 0", name="price"),
        CheckConstraint("sold_one_time OR sold_monthly OR retired_at IS NOT NULL", name="sold"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME)
    credits_micro: Mapped[int] = mapped_column(SERIAL)
    price_minor: Mapped[int] = mapped_column(SERIAL)
    """Of one package, once or a month, in the minor unit of the currency."""
    currency: Mapped[str] = mapped_column(String(3))
    sold_one_time: Mapped[bool]
    sold_monthly: Mapped[bool]
    stripe_one_time_price_id: Mapped[str | None] = mapped_column(ID)
    """A price that the operator made in Stripe; without one the price is sent with each sale."""
    stripe_monthly_price_id: Mapped[str | None] = mapped_column(ID)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]
    """Not sold any more; what was sold goes on."""


class BillingProfile(Base):
    """Who pays for a pool: made by *Enable Billing*, closed when the group is deleted."""

    __tablename__ = "billing_profiles"
    __table_args__ = (
        CheckConstraint("pool_kind IN ('website', 'group')", name="pool_kind"),
        CheckConstraint("(provider = 'stripe') OR (stripe_customer_id IS NULL)", name="customer"),
        Index(
            "uq_billing_profiles_pool",
            "organization_id",
            "pool_kind",
            "pool_id",
            unique=True,
            sqlite_where=OPEN,
            postgresql_where=OPEN,
        ),
    )

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    pool_kind: Mapped[str] = mapped_column(String(16))
    pool_id: Mapped[str] = mapped_column(ID)
    provider: Mapped[str] = mapped_column(PROVIDER)
    """`stripe` (standard), or the partner that charges the organization (partner-managed)."""
    stripe_customer_id: Mapped[str | None] = mapped_column(ID, unique=True)
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class Purchase(Base):
    """One to fifty of a package for a pool, and the unit in which payments are looked at.

    `revision` counts the looks that were written down: a look that began at an older one is not.
    """

    __tablename__ = "purchases"
    __table_args__ = (
        of_organization("purchases", "profile_id", "billing_profiles"),
        CheckConstraint("kind IN ('monthly', 'one_time')", name="kind"),
        CheckConstraint(f"quantity BETWEEN 1 AND {PACKAGES_A_PURCHASE_MAX}", name="quantity"),
        CheckConstraint("package_credits_micro > 0", name="credits"),
        CheckConstraint("package_price_minor > 0", name="price"),
        CheckConstraint(
            "state IN ('created', 'awaiting_payment', 'paid', 'failed', 'expired')", name="state"
        ),
        UniqueConstraint("provider", "session_id", name="uq_purchases_session"),
        Index("ix_purchases_profile", "organization_id", "profile_id", "created_at"),
        Index("ix_purchases_payment", "payment_intent_id"),
        Index(
            "ix_purchases_look",
            "look_at",
            sqlite_where=text("look_at IS NOT NULL"),
            postgresql_where=text("look_at IS NOT NULL"),
        ),
    )

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    profile_id: Mapped[str] = mapped_column(ID)
    provider: Mapped[str] = mapped_column(PROVIDER)
    package_id: Mapped[str] = mapped_column(ID, ForeignKey("packages.id"))
    package_name: Mapped[str] = mapped_column(NAME)
    kind: Mapped[str] = mapped_column(String(16))
    quantity: Mapped[int]
    package_credits_micro: Mapped[int] = mapped_column(SERIAL)
    package_price_minor: Mapped[int] = mapped_column(SERIAL)
    currency: Mapped[str] = mapped_column(String(3))
    stripe_price_id: Mapped[str | None] = mapped_column(ID)
    state: Mapped[str] = mapped_column(String(16), default="created")
    message: Mapped[str] = mapped_column(String(512), default="")
    """Why it failed, in the provider's words."""
    session_id: Mapped[str | None] = mapped_column(ID)
    """The Checkout session, or the partner's charge that the purchase began with."""
    checkout_url: Mapped[str | None] = mapped_column(URL)
    payment_intent_id: Mapped[str | None] = mapped_column(ID)
    bought_by: Mapped[str] = mapped_column(ID)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(SERIAL, default=0)
    look_at: Mapped[datetime | None]
    """When the provider is to be asked about it again, without a webhook; NULL: not by itself."""
    looks_failed: Mapped[int] = mapped_column(default=0)


class Subscription(Base):
    """What a monthly purchase makes; its states are Stripe's."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        of_organization("subscriptions", "purchase_id", "purchases"),
        UniqueConstraint("provider", "provider_id", name="uq_subscriptions_provider"),
        Index("ix_subscriptions_period_end", "current_period_end"),
    )

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    purchase_id: Mapped[str] = mapped_column(ID, primary_key=True)
    provider: Mapped[str] = mapped_column(PROVIDER)
    provider_id: Mapped[str] = mapped_column(ID)
    status: Mapped[str] = mapped_column(String(32))
    cancel_at_period_end: Mapped[bool] = mapped_column(default=False)
    current_period_start: Mapped[datetime | None]
    current_period_end: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]


class Invoice(Base):
    """An invoice as the provider has it, or a partner's charge; the history shows paid ones."""

    __tablename__ = "invoices"
    __table_args__ = (
        of_organization("invoices", "purchase_id", "purchases"),
        UniqueConstraint("provider", "provider_id", name="uq_invoices_provider"),
        Index("ix_invoices_purchase", "organization_id", "purchase_id", "created_at"),
    )

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    provider: Mapped[str] = mapped_column(PROVIDER, primary_key=True)
    provider_id: Mapped[str] = mapped_column(ID, primary_key=True)
    purchase_id: Mapped[str] = mapped_column(ID)
    number: Mapped[str] = mapped_column(NAME, default="")
    status: Mapped[str] = mapped_column(String(32))
    billing_reason: Mapped[str] = mapped_column(String(64), default="")
    currency: Mapped[str] = mapped_column(String(3))
    amount_paid_minor: Mapped[int] = mapped_column(SERIAL, default=0)
    amount_refunded_minor: Mapped[int] = mapped_column(SERIAL, default=0)
    credits_micro: Mapped[int] = mapped_column(SERIAL, default=0)
    """What it paid for, as granted at first."""
    period_start: Mapped[datetime | None]
    period_end: Mapped[datetime | None]
    created_at: Mapped[datetime]
    paid_at: Mapped[datetime | None]
    hosted_invoice_url: Mapped[str | None] = mapped_column(URL)
    invoice_pdf: Mapped[str | None] = mapped_column(URL)


class BoughtGrant(Base):
    """What a grant was paid by. The unique columns are the rule: one grant a payment.

    A one-time grant belongs to a session (a partner's charge), a monthly one to a period of a
    subscription and, once that is known, to a line of an invoice; what a won dispute gave back
    belongs to the dispute.
    """

    __tablename__ = "bought_grants"
    __table_args__ = (
        of_organization("bought_grants", "grant_id", "grants"),
        of_organization("bought_grants", "purchase_id", "purchases"),
        UniqueConstraint("provider", "session_id", name="uq_bought_grants_session"),
        UniqueConstraint("provider", "invoice_id", "line_id", name="uq_bought_grants_line"),
        UniqueConstraint(
            "provider", "subscription_id", "period_start", name="uq_bought_grants_period"
        ),
        UniqueConstraint("provider", "dispute_id", "of_grant_id", name="uq_bought_grants_dispute"),
        CheckConstraint(
            "(session_id IS NOT NULL) OR (invoice_id IS NOT NULL AND line_id IS NOT NULL) OR "
            "(subscription_id IS NOT NULL AND period_start IS NOT NULL) OR "
            "(dispute_id IS NOT NULL)",
            name="paid_by_something",
        ),
        Index("ix_bought_grants_purchase", "organization_id", "purchase_id"),
    )

    organization_id: Mapped[str] = mapped_column(
        ID, ForeignKey("organizations.id"), primary_key=True
    )
    grant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    purchase_id: Mapped[str] = mapped_column(ID)
    provider: Mapped[str] = mapped_column(PROVIDER)
    session_id: Mapped[str | None] = mapped_column(ID)
    invoice_id: Mapped[str | None] = mapped_column(ID)
    line_id: Mapped[str | None] = mapped_column(ID)
    subscription_id: Mapped[str | None] = mapped_column(ID)
    period_start: Mapped[datetime | None]
    dispute_id: Mapped[str | None] = mapped_column(ID)
    """The dispute that was won; `again:<n>` where credits came back otherwise (a refund that
    failed, an invoice paid after it was given up)."""
    of_grant_id: Mapped[str | None] = mapped_column(ID)
    """Whose credits were given back."""


class ProviderEvent(Base):
    """A webhook that was verified and stored: a hint to look, done when `processed_at` is set."""

    __tablename__ = "provider_events"
    __table_args__ = (
        Index(
            "ix_provider_events_waiting",
            "next_attempt_at",
            sqlite_where=text("processed_at IS NULL"),
            postgresql_where=text("processed_at IS NULL"),
        ),
        Index("ix_provider_events_received", "received_at"),
    )

    provider: Mapped[str] = mapped_column(PROVIDER, primary_key=True)
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    type: Mapped[str] = mapped_column(String(128))
    object_kind: Mapped[str] = mapped_column(String(64))
    object_id: Mapped[str] = mapped_column(ID)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    """The provider's time."""
    received_at: Mapped[datetime]
    processed_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    problem: Mapped[str] = mapped_column(String(512), default="")


class Unmatched(Base):
    """Money and grants that do not fit each other. Usually empty; a look that finds it well again
    takes the row away."""

    __tablename__ = "unmatched_payments"

    provider: Mapped[str] = mapped_column(PROVIDER, primary_key=True)
    object_kind: Mapped[str] = mapped_column(String(64), primary_key=True)
    object_id: Mapped[str] = mapped_column(ID, primary_key=True)
    code: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(String(1024))
    organization_id: Mapped[str | None] = mapped_column(ID)
    purchase_id: Mapped[str | None] = mapped_column(ID)
    since: Mapped[datetime]


class ProviderCursor(Base):
    """Up to when what a provider changed is known here; reconciliation begins before it."""

    __tablename__ = "provider_cursors"

    provider: Mapped[str] = mapped_column(PROVIDER, primary_key=True)
    changed_until: Mapped[datetime]
    reconciled_at: Mapped[datetime]
