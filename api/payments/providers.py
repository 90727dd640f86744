"""What is asked of whoever takes the money: of Stripe, and of each partner, the same.

The rows that a question is about are committed before it is asked, so that whatever happens then
can be continued: every question may be repeated. Answers that a buyer must see are `Refused`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from api.errors import Refused, conflict
from api.storage.purchases import STRIPE

PARTNER: Final = "partner:"


@dataclass(frozen=True, slots=True)
class Returns:
    """Where a buyer's browser comes back to from a page of the provider."""

    success_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True)
class Begun:
    """What became of a purchase: the buyer pays at `checkout_url`, has paid, or will be charged."""

    status: Literal["redirect", "succeeded", "pending"]
    checkout_url: str | None = None


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


def not_configured(provider: str) -> Refused:
    name = "Stripe" if provider == STRIPE else f"The partner {provider.removeprefix(PARTNER)!r}"
    return conflict(
        "payments_not_configured",
        f"{name} is not set up here, so nothing can be paid by it.",
        "",
        "Ask the operator of this installation.",
        provider=provider,
    )
