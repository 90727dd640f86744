"""What tests sell and buy: one package, a group and a website that may buy it."""

from typing import Any, Final

from api.rules.billing_profiles import enable_billing
from api.rules.change import Control
from api.rules.groups import create_group
from api.rules.packages import PackageTerms, create_package
from api.rules.purchases import Order
from api.rules.websites import create_website
from api.storage.purchases import STRIPE
from tests.api.conftest import ADMIN

THOUSAND: Final[dict[str, Any]] = {
    "name": "1,000 credits",
    "credits_micro": 1_000_000_000,
    "price_minor": 1_000,
    "currency": "USD",
    "sold_one_time": True,
    "sold_monthly": True,
}
ORDER: Final = Order("pkg", "one_time", 2)


def open_shop(control: Control, organization_id: str = "org_a") -> None:
    """The package `pkg`, group `lab` and its website `web`, billing enabled for both by Stripe."""
    with control.transaction(ADMIN) as transaction:
        create_package(transaction, PackageTerms(**THOUSAND), "pkg")
        change = transaction.change(organization_id)
        create_group(change, "Lab", "lab")
        create_website(change, "lab.example.com", "lab", "web")
        enable_billing(change, "group", "lab", STRIPE)
        enable_billing(change, "website", "web", STRIPE)
