"""The words of settlement: what was sold, what is held here for it, and what ought to be.

Credits are in micro-credits, money in minor units of the purchase's currency, times aware.
"""

from dataclasses import dataclass, field
from datetime import datetime

from schemas.records import GrantKind, PoolKind


@dataclass(frozen=True, slots=True)
class Options:
    """`place_unpaid_renewals`: a renewal's credits are in place while its invoice is not paid."""

    place_unpaid_renewals: bool = True


@dataclass(frozen=True, slots=True)
class Sold:
    """A purchase as it was sold; a later change of the package does not touch it."""

    organization_id: str
    purchase_id: str
    provider: str
    pool_kind: PoolKind
    pool_id: str
    kind: GrantKind
    quantity: int
    package_credits_micro: int
    package_price_minor: int
    currency: str
    session_id: str | None = None

    @property
    def credits_micro(self) -> int:
        return self.quantity * self.package_credits_micro

    @property
    def price_minor(self) -> int:
        return self.quantity * self.package_price_minor


@dataclass(frozen=True, slots=True)
class Identity:
    """What paid for a grant, as `BoughtGrant` keeps it and the database keeps it unique."""

    session_id: str | None = None
    invoice_id: str | None = None
    line_id: str | None = None
    subscription_id: str | None = None
    period_start: datetime | None = None
    dispute_id: str | None = None
    of_grant_id: str | None = None


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """A grant of the purchase. `revoked_micro` only ever grows."""

    id: str
    kind: GrantKind
    amount_micro: int
    revoked_micro: int
    awaiting_payment: bool
    effective_at: datetime
    expires_at: datetime | None
    identity: Identity

    @property
    def left_micro(self) -> int:
        return self.amount_micro - self.revoked_micro


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    """A subscription as it is kept here; `status` is the provider's word."""

    provider_id: str
    status: str
    cancel_at_period_end: bool
    current_period_start: datetime | None
    current_period_end: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """An invoice as the history keeps it; `credits_micro` is what it paid for."""

    provider_id: str
    number: str
    status: str
    billing_reason: str
    currency: str
    amount_paid_minor: int
    amount_refunded_minor: int
    credits_micro: int
    period_start: datetime | None
    period_end: datetime | None
    created_at: datetime
    paid_at: datetime | None
    hosted_invoice_url: str | None
    invoice_pdf: str | None


@dataclass(frozen=True, slots=True)
class Held:
    """What the database holds for the purchase."""

    state: str = "created"
    message: str = ""
    grants: tuple[HeldGrant, ...] = ()
    subscription: SubscriptionRow | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Money and grants that do not fit each other, for a person to look at."""

    object_kind: str
    object_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class WantedGrant:
    """A grant that ought to be, and how much of it ought to be revoked in sum.

    `effective_at` None: from when it is written. `why` is for what is revoked; `paid_by` is the
    provider's object (kind, id) that it came from.
    """

    id: str
    kind: GrantKind
    amount_micro: int
    revoked_micro: int
    awaiting_payment: bool
    effective_at: datetime | None
    expires_at: datetime | None
    identity: Identity
    why: str
    source: str
    paid_by: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What ought to be true of a purchase. `subscription` None: none is known.

    Grants and invoices that are not named stay as they are. `look_at` is when to ask again without
    being told to.
    """

    state: str
    message: str
    look_at: datetime | None
    subscription: SubscriptionRow | None = None
    invoices: tuple[InvoiceRow, ...] = ()
    grants: tuple[WantedGrant, ...] = ()
    problems: tuple[Problem, ...] = field(default=())
