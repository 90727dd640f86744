"""Requests and answers of `/v1` about credits that are bought. Credits are micro-credits, money is
in minor units of its currency, as Stripe has them; times RFC 3339."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.rules.packages import CREDITS_MICRO_MAX, PRICE_MINOR_MAX
from api.storage.purchases import PACKAGES_A_PURCHASE_MAX
from api.web.shapes.v1 import GROUP, TIME, Id, Name, Request

Credits = Annotated[int, Field(strict=True, ge=1, le=CREDITS_MICRO_MAX, examples=[1_000_000_000])]
Price = Annotated[int, Field(strict=True, ge=1, le=PRICE_MINOR_MAX, examples=[1_000])]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["USD"])]
PurchaseKind = Literal["one_time", "monthly"]
ReturnPath = Annotated[
    str,
    Field(
        max_length=500,
        pattern=r"^/([A-Za-z0-9._~!$&'()*+,;=:@%-][A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?$",
        examples=["/organizations/org_acme/groups/group_research/billing"],
        description="Where the buyer's browser comes back to: a path of this installation.",
    ),
]
PACKAGE = "pkg_1000"
PURCHASE = "buy_01ARZ3NDEKTSV4RRFFQ69G5FAV"
CHECKOUT = "https://checkout.stripe.com/c/pay/cs_test_a1b2c3"


class NewPackage(Request):
    id: Id | None = Field(default=None, examples=[PACKAGE])
    name: Name = Field(examples=["1,000 credits"])
    credits_micro: Credits
    price_minor: Price
    currency: Currency = "USD"
    sold_one_time: bool = True
    sold_monthly: bool = False
    stripe_one_time_price_id: Id | None = Field(
        default=None, description="A price made in Stripe; absent: the price is sent as it is."
    )
    stripe_monthly_price_id: Id | None = None


class PackageChange(Request):
    """Only what is given changes, from the next sale on. What was sold stays as it was sold."""

    name: Name | None = None
    credits_micro: Credits | None = None
    price_minor: Price | None = None
    currency: Currency | None = None
    sold_one_time: bool | None = None
    sold_monthly: bool | None = None
    stripe_one_time_price_id: Id | None = None
    stripe_monthly_price_id: Id | None = None
    retired: bool | None = Field(default=None, description="True: sold no more; false: again.")


class Package(BaseModel):
    id: str = Field(examples=[PACKAGE])
    name: str = Field(examples=["1,000 credits"])
    credits_micro: int = Field(examples=[1_000_000_000])
    price_minor: int = Field(examples=[1_000])
    currency: str = Field(examples=["USD"])
    price_text: str = Field(examples=["10.00 USD"], description="The price as people write it.")
    sold_one_time: bool
    sold_monthly: bool
    stripe_one_time_price_id: str | None
    stripe_monthly_price_id: str | None
    retired: bool
    created_at: datetime = Field(examples=[TIME])
    updated_at: datetime = Field(examples=[TIME])


class Packages(BaseModel):
    items: list[Package]
    next_cursor: str | None


class OfferedPackage(BaseModel):
    id: str = Field(examples=[PACKAGE])
    name: str = Field(examples=["1,000 credits"])
    credits_micro: int = Field(examples=[1_000_000_000])
    price_minor: int = Field(examples=[1_000])
    currency: str = Field(examples=["USD"])
    price_text: str = Field(examples=["10.00 USD"])
    sold_one_time: bool
    sold_monthly: bool


class OfferedPackages(BaseModel):
    """What can be bought in the organization's currency, the smallest first."""

    items: list[OfferedPackage]
    quantity_max: int = Field(examples=[PACKAGES_A_PURCHASE_MAX])


class Enable(Request):
    kind: Literal["standard", "partner_managed"] | None = Field(
        default=None,
        description="Who is paid; absent: the organization's partner if it has one, else Stripe.",
    )


class Profile(BaseModel):
    id: str = Field(examples=["bill_01ARZ3NDEKTSV4RRFFQ69G5FAV"])
    provider: str = Field(examples=["stripe"], description="`stripe`, or `partner:` and its name.")
    partner_managed: bool
    enabled_at: datetime = Field(examples=[TIME])


class Pool(BaseModel):
    kind: Literal["website", "group"]
    id: str = Field(examples=[GROUP])
    name: str = Field(examples=["Research"])


class Site(BaseModel):
    id: str = Field(examples=["web_3"])
    name: str = Field(examples=["shop.example.com"])
    address: str | None = Field(examples=["https://shop.example.com"])
    icon_url: str | None = Field(
        examples=["https://shop.example.com/favicon.ico"],
        description="Null where the website's name is no host name.",
    )


class Credit(BaseModel):
    """`total = used + remaining`, all null while the figures cannot be read."""

    total_micro: int | None = Field(examples=[1_000_000_000])
    used_micro: int | None = Field(examples=[250_000_000])
    remaining_micro: int | None = Field(examples=[750_000_000])
    next_reset_at: datetime | None = Field(examples=["2026-12-01T00:00:00.000Z"])
    packages: int = Field(
        examples=[2], description="Bought: in live subscriptions, or one-time and paid."
    )


class Subscription(BaseModel):
    id: str = Field(examples=[PURCHASE], description="That of the purchase which began it.")
    package_name: str = Field(examples=["1,000 credits"])
    quantity: int = Field(examples=[2])
    credits_micro: int = Field(examples=[2_000_000_000], description="Each month.")
    amount_minor: int = Field(examples=[2_000], description="Each month.")
    currency: str = Field(examples=["USD"])
    amount_text: str = Field(examples=["20.00 USD"])
    status: str = Field(examples=["active"], description="Stripe's word.")
    cancel_at_period_end: bool
    current_period_end: datetime | None = Field(examples=["2026-12-01T00:00:00.000Z"])


class Purchase(BaseModel):
    id: str = Field(examples=[PURCHASE])
    package_id: str = Field(examples=[PACKAGE])
    package_name: str = Field(examples=["1,000 credits"])
    kind: PurchaseKind
    quantity: int = Field(examples=[2])
    credits_micro: int = Field(examples=[2_000_000_000])
    amount_minor: int = Field(examples=[2_000])
    currency: str = Field(examples=["USD"])
    amount_text: str = Field(examples=["20.00 USD"])
    state: Literal["created", "awaiting_payment", "paid", "failed", "expired"]
    message: str = Field(description="Why it failed; empty otherwise.")
    checkout_url: str | None = Field(
        examples=[CHECKOUT], description="Where it can be paid; null once it cannot."
    )
    bought_by: str = Field(examples=["key:key_01ARZ3NDEKTSV4RRFFQ69G5FAV"])
    created_at: datetime = Field(examples=[TIME])
    updated_at: datetime = Field(examples=[TIME])


class Purchases(BaseModel):
    items: list[Purchase]
    next_cursor: str | None


class Billing(BaseModel):
    """What the billing page of a group or website shows."""

    pool: Pool
    currency: str = Field(examples=["USD"])
    profile: Profile | None = Field(description="Null until billing is enabled.")
    partner_managed: bool
    website_count: int = Field(examples=[1])
    websites: list[Site] = Field(
        description="Of the group, at most a thousand; a website's own answer has itself."
    )
    monthly: Credit
    one_time: Credit
    debt_micro: int | None = Field(examples=[0], description="Later credits repay it first.")
    figures_missing: str | None = Field(
        description="Why the figures are null; null when they are there.", examples=[None]
    )
    subscriptions: list[Subscription]
    waiting: list[Purchase] = Field(description="Purchases that wait for their payment.")


class NewPurchase(Request):
    package_id: Id = Field(examples=[PACKAGE])
    kind: PurchaseKind = "one_time"
    quantity: int = Field(strict=True, ge=1, le=PACKAGES_A_PURCHASE_MAX, examples=[2])
    return_path: ReturnPath | None = None


class Bought(BaseModel):
    """`redirect`: the buyer pays at `checkout_url`. Else a partner charges, or has."""

    status: Literal["redirect", "succeeded", "pending"]
    checkout_url: str | None = Field(examples=[CHECKOUT])
    purchase: Purchase


class NewPortal(Request):
    return_path: ReturnPath | None = None


class Portal(BaseModel):
    url: str = Field(examples=["https://billing.stripe.com/p/session/test_a1b2c3"])


class Invoice(BaseModel):
    number: str = Field(examples=["ABCD-0001"])
    amount_minor: int = Field(examples=[2_000])
    refunded_minor: int = Field(examples=[0])
    currency: str = Field(examples=["USD"])
    amount_text: str = Field(examples=["20.00 USD"])
    credits_micro: int = Field(examples=[2_000_000_000])
    kind: PurchaseKind
    package_name: str = Field(examples=["1,000 credits"])
    quantity: int = Field(examples=[2])
    purchase_id: str = Field(examples=[PURCHASE])
    period_start: datetime | None = Field(examples=[TIME])
    period_end: datetime | None = Field(examples=["2026-12-01T00:00:00.000Z"])
    paid_at: datetime | None = Field(examples=[TIME])
    hosted_invoice_url: str | None = Field(examples=["https://invoice.stripe.com/i/acct_1/test_1"])
    invoice_pdf: str | None = Field(examples=["https://pay.stripe.com/invoice/acct_1/test_1/pdf"])


class Invoices(BaseModel):
    """Paid invoices, newest first; `months` are those that have any, newest first."""

    items: list[Invoice]
    months: list[str] = Field(examples=[["2026-11", "2026-10"]])
    time_zone: str = Field(examples=["Europe/Oslo"], description="The organization's, of months.")
    next_cursor: str | None
