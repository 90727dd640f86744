"""The contract with partners, version 1: every body that we and a partner send each other.

`deploy/partner.md` says in words what these mean; the JSON Schemas in `json_schema/partners/` are
made of them. Unknown fields are ignored on both sides, so that either may add some. Money is an
integer of the currency's minor unit (cents), credits are integers of micro-credits, times are RFC
3339 with an offset. Absent text is the empty string.
"""

from datetime import datetime
from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct, field

from schemas.records import INT64_MAX, GrantKind, PoolKind

VERSION: Final = 1
MINOR_MAX: Final = 2**53 - 1
"""Amounts are read exactly by every JSON library, those that read numbers as floats included."""
PACKAGES_MAX: Final = 50
CHARGES_MAX: Final = 100
MESSAGE_CHARACTERS_MAX: Final = 500
ADDRESS_CHARACTERS_MAX: Final = 2048

Instant = Annotated[datetime, Meta(tz=True)]
Id = Annotated[str, Meta(min_length=1, max_length=256)]
PartnerId = Annotated[str, Meta(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9_.:-]+$")]
"""An id that the partner chooses; it becomes part of ids of ours, and of paths."""
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$")]
Packages = Annotated[int, Meta(ge=1, le=PACKAGES_MAX)]
Minor = Annotated[int, Meta(ge=0, le=MINOR_MAX)]
CreditsMicro = Annotated[int, Meta(ge=1, le=INT64_MAX)]
Message = Annotated[str, Meta(max_length=MESSAGE_CHARACTERS_MAX)]
Text = Annotated[str, Meta(max_length=256)]
Address = Annotated[str, Meta(max_length=ADDRESS_CHARACTERS_MAX)]

ChargeStatus = Literal["pending", "succeeded", "declined"]
SubscriptionStatus = Literal["active", "past_due", "canceled"]


class ChargeRequest(Struct, frozen=True, kw_only=True):
    """`POST {base}/charges`: charge this customer once for a purchase, and, where `kind` is
    `monthly`, again at each renewal."""

    purchase_id: Id
    organization_id: Id
    pool_kind: PoolKind
    pool_id: Id
    kind: GrantKind
    package_id: Id
    description: Text
    """What is bought, in words for an invoice."""
    packages: Packages
    credits_micro: CreditsMicro
    """Of all packages together; 1 credit is 1,000,000 micro-credits."""
    amount_minor: Minor
    """To be charged, all packages together; taxes are the partner's and not part of it."""
    currency: Currency


class ChargeAnswer(Struct, frozen=True, kw_only=True):
    """The answer to `POST {base}/charges`; a whole `Charge` is one, too."""

    charge_id: PartnerId
    status: ChargeStatus
    message: Message = ""
    """Said to the buyer when the charge is declined."""


class Charge(Struct, frozen=True, kw_only=True):
    """One charge as it is now. `amount_minor`, `currency` and `packages` are what was asked."""

    charge_id: PartnerId
    purchase_id: Id
    organization_id: Id
    status: ChargeStatus
    packages: Packages
    amount_minor: Minor
    currency: Currency
    created_at: Instant
    updated_at: Instant
    """When anything of this charge, or, for the newest one, of its subscription changed last."""
    paid_at: Instant | None = None
    """When it succeeded."""
    refunded_minor: Minor = 0
    """Everything refunded so far, together; at most `amount_minor`."""
    message: Message = ""
    subscription_id: PartnerId | None = None
    """Of a monthly charge; with it go the two ends of the period that it pays for."""
    period_start: Instant | None = None
    period_end: Instant | None = None
    invoice_number: Text = ""
    invoice_url: Address = ""
    """A page that shows the invoice; https."""
    invoice_pdf_url: Address = ""


class Subscription(Struct, frozen=True, kw_only=True):
    """What a monthly purchase made, as it is now."""

    subscription_id: PartnerId
    purchase_id: Id
    status: SubscriptionStatus
    current_period_start: Instant
    current_period_end: Instant
    cancel_at_period_end: bool = False
    canceled_at: Instant | None = None


class Purchase(Struct, frozen=True, kw_only=True):
    """`GET {base}/purchases/{purchase_id}`: all there is about one purchase."""

    purchase_id: Id
    charges: Annotated[list[Charge], Meta(max_length=CHARGES_MAX)]
    """The newest 100, newest first."""
    subscription: Subscription | None = None
    request: ChargeRequest | None = None
    """What was asked for. With it a purchase that an older backup of ours does not have is made
    again; without it such a charge waits for a person."""


class ChargeList(Struct, frozen=True, kw_only=True):
    """`GET {base}/charges?since=…`: by `updated_at`, oldest first, then by `charge_id`."""

    charges: Annotated[list[Charge], Meta(max_length=CHARGES_MAX)]
    next_cursor: Annotated[str, Meta(max_length=1024)] = ""
    """For the next page; empty on the last."""


class SubscriptionChange(Struct, frozen=True, kw_only=True):
    """`POST {base}/subscriptions/{subscription_id}/cancel` and `/resume`."""

    action: Literal["cancel", "resume"]
    subscription_id: PartnerId
    purchase_id: Id
    organization_id: Id
    at_period_end: bool = True
    """For `cancel`: at the end of the paid period, or now, without a refund."""


class Portal(Struct, frozen=True, kw_only=True):
    """`GET {base}/portal`: where this customer manages what it pays for, for a short time."""

    url: Annotated[str, Meta(min_length=1, max_length=ADDRESS_CHARACTERS_MAX)]
    expires_at: Instant


class Problem(Struct, frozen=True, kw_only=True):
    """What was wrong; `code` is one of the words of `deploy/partner.md`."""

    code: Annotated[str, Meta(min_length=1, max_length=64)]
    message: Message = ""


class Failure(Struct, frozen=True, kw_only=True):
    """The body of every answer that is no success, from either side."""

    error: Problem


class About(Struct, frozen=True, kw_only=True):
    """Which purchase to look at. A webhook is a hint: what is true is asked for."""

    purchase_id: Id
    organization_id: Id
    charge_id: PartnerId | None = None
    subscription_id: PartnerId | None = None


class AboutRefund(About, frozen=True, kw_only=True):
    """As `About`, with the cumulative refunded amount of the charge."""

    refunded_minor: Minor = 0


class _Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    timestamp: Instant
    """When it happened."""


class ChargeSucceeded(_Event, frozen=True, kw_only=True, tag="charge.succeeded"):
    """A pending charge went through."""

    data: About


class ChargeDeclined(_Event, frozen=True, kw_only=True, tag="charge.declined"):
    """A pending charge, or that of a renewal, did not go through."""

    data: About


class ChargeRefunded(_Event, frozen=True, kw_only=True, tag="charge.refunded"):
    """Money went back, in part or whole, disputes that were lost included."""

    data: AboutRefund


class SubscriptionRenewed(_Event, frozen=True, kw_only=True, tag="subscription.renewed"):
    """A new period was charged for."""

    data: About


class SubscriptionUpdated(_Event, frozen=True, kw_only=True, tag="subscription.updated"):
    """It is to end with its period, or no longer; or it is past due, or no longer."""

    data: About


class SubscriptionCanceled(_Event, frozen=True, kw_only=True, tag="subscription.canceled"):
    """It has ended; what was paid for stays until the end of its period."""

    data: About


Webhook = (
    ChargeSucceeded
    | ChargeDeclined
    | ChargeRefunded
    | SubscriptionRenewed
    | SubscriptionUpdated
    | SubscriptionCanceled
)
"""`POST {our address}/webhooks/partners/{partner}`."""


class Received(Struct, frozen=True, kw_only=True):
    """Our answer to a webhook that is stored."""

    received: bool = field(default=True)


class Envelope(Struct, frozen=True, kw_only=True):
    """What is read of a webhook of a type that this version does not know; it is kept and does
    nothing."""

    type: Annotated[str, Meta(min_length=1, max_length=64)]
    timestamp: Instant


WEBHOOK_TYPES: Final = frozenset(str(event.__struct_config__.tag) for event in get_args(Webhook))

MESSAGES: Final = {
    "charge-request": ChargeRequest,
    "charge-answer": ChargeAnswer,
    "charge": Charge,
    "purchase": Purchase,
    "charge-list": ChargeList,
    "subscription-change": SubscriptionChange,
    "subscription": Subscription,
    "portal": Portal,
    "error": Failure,
    "webhook": Webhook,
    "webhook-received": Received,
}
"""Each message that has a JSON Schema of its own, by the name of its file."""
