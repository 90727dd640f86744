"""What tests sell and buy: one package, a group and a website that may buy it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import httpx

from api.errors import Refused, unavailable
from api.payments.providers import Begun, Returns
from api.rules.billing_profiles import enable_billing
from api.rules.change import Control
from api.rules.groups import create_group
from api.rules.packages import PackageTerms, create_package
from api.rules.purchases import Order, session_made
from api.rules.websites import create_website
from api.storage.purchases import STRIPE, Invoice, Purchase, Subscription
from tests.api.serving import SETUP

THOUSAND: Final[dict[str, Any]] = {
    "name": "1,000 credits",
    "credits_micro": 1_000_000_000,
    "price_minor": 1_000,
    "currency": "USD",
    "sold_one_time": True,
    "sold_monthly": True,
}
ORG: Final = "/v1/organizations/org_a"
LAB: Final = f"{ORG}/groups/lab"
WEB: Final = f"{ORG}/websites/web"
BUY: Final[dict[str, Any]] = {"package_id": "pkg", "kind": "one_time", "quantity": 2}
ORDER: Final = Order("pkg", "one_time", 2)


def open_shop(control: Control, organization_id: str = "org_a") -> None:
    """The package `pkg`, group `lab` and its website `web`, billing enabled for both by Stripe."""
    with control.transaction(SETUP) as transaction:
        create_package(transaction, PackageTerms(**THOUSAND), "pkg")
        change = transaction.change(organization_id)
        create_group(change, "Lab", "lab")
        create_website(change, "lab.example.com", "lab", "web")
        enable_billing(change, "group", "lab", STRIPE)
        enable_billing(change, "website", "web", STRIPE)


def code(answer: httpx.Response) -> tuple[int, str]:
    """The status of a refusal, and its code."""
    return answer.status_code, answer.json()["error"]["code"]


@dataclass
class CashTill:
    """A provider without a network: what is asked of it is kept, and it can be away.

    As the real ones it is asked for one purchase any number of times and makes one session.
    """

    control: Control
    status: Literal["redirect", "succeeded", "pending"] = "redirect"
    asked: list[tuple[str, str]] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    is_away: Literal["", "before", "after"] = ""
    """Whether it cannot be reached, or its answer is lost on the way back."""
    declines: str = ""
    has_paid: bool = False
    returns: Returns | None = None

    async def begin(self, organization_id: str, purchase_id: str, returns: Returns) -> Begun:
        self._ask("begin", purchase_id)
        self.returns = returns
        session_id = self.sessions.setdefault(purchase_id, f"cs_{len(self.sessions)}")
        if self.is_away == "after":
            raise unavailable("provider_unavailable", "The answer was lost.", 1)
        url = f"https://pay.example/{session_id}" if self.status == "redirect" else None
        with self.control.change(organization_id, SETUP) as change:
            row = session_made(change, purchase_id, session_id, url, None)
            if self.declines:
                row.state, row.message = "failed", self.declines
            elif self.status == "succeeded":
                row.state = "paid"
        if self.declines:
            raise Refused(402, "payment_declined", self.declines)
        return Begun(self.status, url)

    async def cancel(self, organization_id: str, purchase_id: str) -> None:
        self._steer("cancel", organization_id, purchase_id, is_to_end=True)

    async def resume(self, organization_id: str, purchase_id: str) -> None:
        self._steer("resume", organization_id, purchase_id, is_to_end=False)

    async def portal(self, organization_id: str, profile_id: str, return_url: str) -> str:
        self._ask("portal", profile_id)
        return f"https://portal.example/?return={return_url}"

    async def look(self, organization_id: str, purchase_id: str) -> None:
        self._ask("look", purchase_id)
        if self.has_paid:
            with self.control.store.write() as session:
                session.get_one(Purchase, (organization_id, purchase_id)).state = "paid"

    def _steer(self, what: str, organization_id: str, purchase_id: str, *, is_to_end: bool) -> None:
        self._ask(what, purchase_id)
        with self.control.store.write() as session:
            row = session.get_one(Subscription, (organization_id, purchase_id))
            row.cancel_at_period_end = is_to_end

    def _ask(self, what: str, of: str) -> None:
        self.asked.append((what, of))
        if self.is_away == "before":
            raise unavailable("provider_unavailable", "Nobody answers.", 1)


def subscribe(control: Control, purchase_id: str, *, has_ended: bool = False) -> None:
    """The purchase is paid, and its subscription runs for thirty days, or has ended."""
    now = control.clock()
    with control.store.write() as session:
        row = session.get_one(Purchase, ("org_a", purchase_id))
        row.state, row.look_at = "paid", None
        session.add(
            Subscription(
                organization_id="org_a",
                purchase_id=purchase_id,
                provider=row.provider,
                provider_id=f"sub_{purchase_id}",
                status="canceled" if has_ended else "active",
                current_period_start=now,
                current_period_end=now + timedelta(days=30),
                ended_at=now if has_ended else None,
                updated_at=now,
            )
        )


def invoice(
    control: Control, purchase_id: str, number: str, paid_at: datetime | None, status: str = "paid"
) -> None:
    """An invoice of the purchase, with links."""
    with control.store.write() as session:
        session.add(
            Invoice(
                organization_id="org_a",
                provider=STRIPE,
                provider_id=f"in_{number}",
                purchase_id=purchase_id,
                number=number,
                status=status,
                currency="USD",
                amount_paid_minor=2_000,
                credits_micro=2_000_000_000,
                created_at=paid_at or control.clock(),
                paid_at=paid_at,
                hosted_invoice_url=f"https://invoice.example/{number}",
                invoice_pdf=f"https://invoice.example/{number}.pdf",
            )
        )
