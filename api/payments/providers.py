"""What is asked of whoever takes the money: of Stripe, and of each partner, the same.

The rows that a question is about are committed before it is asked, so that whatever happens then
can be continued: every question may be repeated. Answers that a buyer must see are `Refused`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from api.errors import Refused, conflict
from api.reading.billing import open_profile
from api.rules.change import Change
from api.storage.purchases import STRIPE, Purchase
from schemas.records import PoolKind

ProfileKind = Literal["standard", "partner_managed"]
PARTNER: Final = "partner:"
RETURN_PATH: Final = "/billing/return"
"""A page of ours for buyers who come back, where whoever sells has none of its own."""


@dataclass(frozen=True, slots=True)
class Returns:
    """Where a buyer's browser comes back to from a page of the provider."""

    success_url: str
    cancel_url: str


def returns_to(page: str, purchase_id: str) -> Returns:
    """The page is told which purchase it was, and how the buyer left the checkout."""
    address = f"{page}?purchase={purchase_id}&checkout="
    return Returns(f"{address}success", f"{address}cancelled")


@dataclass(frozen=True, slots=True)
class Begun:
    """What became of a purchase: the buyer pays at `checkout_url`, has paid, or will be charged."""

    status: Literal["redirect", "succeeded", "pending"]
    checkout_url: str | None = None


def already_begun(purchase: Purchase) -> Begun | None:
    """What was answered to whoever bought this; None where its provider is to be asked (again).

    Raises Refused: 402 where it was declined, 409 where nobody paid in time.
    """
    if purchase.state == "failed":
        why = purchase.message or "The payment failed."
        raise Refused(402, "payment_declined", why, "", "Buy anew.")
    if purchase.state == "expired":
        raise conflict("purchase_expired", "Nobody paid this purchase in time.", "", "Buy anew.")
    if purchase.checkout_url is not None:
        return Begun("redirect", purchase.checkout_url)
    return Begun("succeeded") if purchase.state == "paid" else None


class Till(Protocol):
    """One provider. Purchases and profiles are named by our ids, and are its own."""

    async def begin(self, organization_id: str, purchase_id: str, returns: Returns) -> Begun:
        """Asks for the money of a purchase, once however often it is called: a repeat goes on with
        what a crash left, and answers the same. Raises Refused (402) where it is declined."""
        ...

    async def cancel(self, organization_id: str, purchase_id: str) -> None:
        """Ends the subscription with its period, and looks, so that the row says so."""
        ...

    async def resume(self, organization_id: str, purchase_id: str) -> None:
        """Takes `cancel` back, and looks."""
        ...

    async def portal(self, organization_id: str, profile_id: str, return_url: str) -> str:
        """A short-lived address where the customer manages what it pays."""
        ...

    async def look(self, organization_id: str, purchase_id: str) -> None:
        """Asks what is true of the purchase, and makes that true here, now."""
        ...


@dataclass(frozen=True, slots=True)
class Payments:
    """Everybody who can be paid by. A partner's name is without the prefix `partner:`."""

    stripe: Till | None = None
    partners: Mapping[str, Till] = field(default_factory=dict)
    partner_by_organization: Mapping[str, str] = field(default_factory=dict)

    def of(self, provider: str) -> Till:
        """Raises Refused (409) where the provider is not configured (any more)."""
        if provider == STRIPE:
            till = self.stripe
        else:
            till = self.partners.get(provider.removeprefix(PARTNER))
        if till is None:
            raise not_configured(provider)
        return till

    def standard(self) -> str:
        """The provider of standard billing. Raises Refused (409) where there is none."""
        self.of(STRIPE)
        return STRIPE

    def partner_of(self, organization_id: str) -> str | None:
        """The provider that charges an organization in our place, if one does."""
        name = self.partner_by_organization.get(organization_id)
        return None if name is None else PARTNER + name


def provider_for(
    payments: Payments, change: Change, pool: tuple[PoolKind, str], kind: ProfileKind | None
) -> str:
    """Who is to be paid for a pool when billing is enabled. Where nothing is said it is who is
    paid already, else the organization's partner, else Stripe. Raises Refused (409) where that
    one cannot be."""
    former = open_profile(change.session, change.organization_id, *pool)
    if kind is None and former is not None:
        return former.provider
    partner = payments.partner_of(change.organization_id)
    if kind == "standard" or (kind is None and partner is None):
        return payments.standard()
    if partner is None:
        raise conflict(
            "no_partner",
            "No partner manages the billing of this organization.",
            "kind",
            "Enable standard billing.",
        )
    payments.of(partner)
    return partner


def not_configured(provider: str) -> Refused:
    name = "Stripe" if provider == STRIPE else f"The partner {provider.removeprefix(PARTNER)!r}"
    return conflict(
        "payments_not_configured",
        f"{name} is not set up here, so nothing can be paid by it.",
        "",
        "Ask the operator of this installation.",
        provider=provider,
    )
