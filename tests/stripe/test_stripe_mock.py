"""What the tests of this folder ask of the stand-in, Stripe's own stripe-mock takes as well."""

import pytest
from stripe import InvalidRequestError

from tests.stripe import shop
from tests.stripe.mock import StripeMock
from tests.stripe.running import Asked, RunningStripe


def test_every_request_of_a_shop_is_one_of_stripes(
    standin: RunningStripe, stripe_mock: StripeMock
) -> None:
    client = standin.client()
    opened = shop.once(client)
    standin.control.pay(opened.id)
    intent = str(shop.session(client, opened.id).payment_intent)
    client.v1.refunds.create({"payment_intent": intent, "amount": 100})
    client.v1.charges.list({"payment_intent": intent})
    client.v1.checkout.sessions.expire(shop.once(client).id)
    monthly = shop.monthly(client)
    standin.control.pay(monthly.id)
    subscription = str(shop.session(client, monthly.id).subscription)
    client.v1.subscriptions.update(subscription, {"cancel_at_period_end": True})
    client.v1.subscriptions.update(subscription, {"cancel_at_period_end": False})
    client.v1.invoices.create_preview({"subscription": subscription})
    invoice = shop.newest_invoice(client, subscription)
    client.v1.invoice_payments.list({"invoice": invoice.id})
    client.v1.invoices.line_items.list(invoice.id)
    client.v1.events.list({"created": {"gte": 1}, "types": ["invoice.paid"]})
    client.v1.subscriptions.cancel(subscription)
    assert stripe_mock.refusals(standin.requests) == []


def test_a_parameter_that_stripe_has_not_is_found(
    standin: RunningStripe, stripe_mock: StripeMock
) -> None:
    with pytest.raises(InvalidRequestError):
        standin.client().v1.customers.create({"nickname": "A"})  # type: ignore[typeddict-unknown-key]
    (why,) = stripe_mock.refusals(standin.requests)
    assert "additional properties are not allowed" in why
    assert stripe_mock.refusals([Asked("POST", "/v1/refunds", "", "amount=many")])
