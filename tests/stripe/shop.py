"""What a shop asks of Stripe, short enough to read in a test."""

from typing import Any

from stripe import Invoice, PaymentIntent, StripeClient, Subscription
from stripe.checkout import Session

DAY_S = 86_400
HOUR_S = 3_600
OURS = {"metering_purchase": "pur_1"}
SUCCESS = "https://shop.example/done?session={CHECKOUT_SESSION_ID}"
CANCEL = "https://shop.example/credits"


def customer(client: StripeClient) -> str:
    return client.v1.customers.create(
        {"name": "Acme", "email": "billing@acme.example", "metadata": OURS}
    ).id


def once(client: StripeClient, buyer: str | None = None, **further: Any) -> Session:
    """A session for two packages of 25.00 each."""
    params: dict[str, Any] = {
        "mode": "payment",
        "customer": buyer or customer(client),
        "line_items": [{"quantity": 2, "price_data": price_data()}],
        "success_url": SUCCESS,
        "cancel_url": CANCEL,
        "metadata": OURS,
        "payment_intent_data": {"metadata": OURS, "description": "2 packages for Design"},
        "invoice_creation": {"enabled": True, "invoice_data": {"metadata": OURS}},
        **further,
    }
    return client.v1.checkout.sessions.create(params)  # type: ignore[arg-type]


def monthly(client: StripeClient, buyer: str | None = None, **further: Any) -> Session:
    """A session for two packages of 25.00 each, every month."""
    recurring = {"recurring": {"interval": "month"}}
    params: dict[str, Any] = {
        "mode": "subscription",
        "customer": buyer or customer(client),
        "line_items": [{"quantity": 2, "price_data": price_data() | recurring}],
        "success_url": SUCCESS,
        "metadata": OURS,
        "subscription_data": {"metadata": OURS},
        **further,
    }
    return client.v1.checkout.sessions.create(params)  # type: ignore[arg-type]


def price_data() -> dict[str, Any]:
    return {
        "currency": "usd",
        "unit_amount": 2_500,
        "product_data": {"name": "Growth", "description": "1,000 credits each"},
    }


def session(client: StripeClient, identifier: str) -> Session:
    return client.v1.checkout.sessions.retrieve(identifier, {"expand": ["line_items"]})


def intent(client: StripeClient, paid: Session) -> PaymentIntent:
    return client.v1.payment_intents.retrieve(
        str(paid.payment_intent), {"expand": ["latest_charge"]}
    )


def subscription(client: StripeClient, identifier: str) -> Subscription:
    return client.v1.subscriptions.retrieve(identifier)


def newest_invoice(client: StripeClient, of: str) -> Invoice:
    found = client.v1.invoices.list(
        {"subscription": of, "limit": 1, "expand": ["data.payments"]}
    ).data
    return found[0]


def event_types(client: StripeClient) -> list[str]:
    """Oldest first."""
    return [event.type for event in client.v1.events.list({"limit": 100}).data][::-1]
