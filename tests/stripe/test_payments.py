"""One-time payments: the hosted page, slow methods, expiry, refunds, disputes."""

import pytest
from stripe import InvalidRequestError
from stripe.checkout import Session

from tests.stripe import shop
from tests.stripe.running import RunningStripe


def test_a_paid_session_has_its_payment_and_a_post_purchase_invoice(standin: RunningStripe) -> None:
    client = standin.client()
    opened = shop.once(client)
    assert (opened.status, opened.payment_status, opened.payment_intent) == ("open", "unpaid", None)
    assert opened.amount_total == 5_000
    standin.control.pay(opened.id)
    paid = shop.session(client, opened.id)
    assert (paid.status, paid.payment_status, paid.url) == ("complete", "paid", None)
    assert paid.line_items is not None
    assert [(item.quantity, item.amount_total) for item in paid.line_items.data] == [(2, 5_000)]
    intent = shop.intent(client, paid)
    assert (intent.status, intent.amount_received) == ("succeeded", 5_000)
    assert intent.metadata["metering_purchase"] == "pur_1"
    invoice = client.v1.invoices.retrieve(str(paid.invoice), {"expand": ["payments"]})
    assert (invoice.status, invoice.billing_reason, invoice.parent) == ("paid", "manual", None)
    assert invoice.metadata is not None
    assert invoice.metadata["metering_purchase"] == "pur_1"
    assert invoice.payments is not None
    assert [payment.payment.payment_intent for payment in invoice.payments.data] == [intent.id]
    assert invoice.number
    assert invoice.hosted_invoice_url


def test_events_come_in_the_order_of_what_happened(standin: RunningStripe) -> None:
    client = standin.client()
    standin.control.pay(shop.once(client).id)
    assert shop.event_types(client) == [
        "customer.created",
        "product.created",
        "price.created",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice.created",
        "invoice.finalized",
        "invoice_payment.paid",
        "invoice.paid",
        "invoice.payment_succeeded",
        "checkout.session.completed",
    ]


def test_a_declined_card_leaves_the_session_open(standin: RunningStripe) -> None:
    client = standin.client()
    opened = shop.once(client)
    standin.control.pay(opened.id, "failed")
    tried = shop.session(client, opened.id)
    assert (tried.status, tried.payment_status) == ("open", "unpaid")
    assert shop.intent(client, tried).status == "requires_payment_method"
    standin.control.pay(opened.id)
    paid = shop.session(client, opened.id)
    assert paid.payment_intent == tried.payment_intent
    assert paid.payment_status == "paid"


@pytest.mark.parametrize(
    ("succeeds", "status", "event"),
    [(True, "paid", "async_payment_succeeded"), (False, "unpaid", "async_payment_failed")],
)
def test_a_slow_payment_ends_later(
    standin: RunningStripe, succeeds: bool, status: str, event: str
) -> None:
    client = standin.client()
    opened = shop.once(client)
    standin.control.pay(opened.id, "processing")
    waiting = shop.session(client, opened.id)
    assert (waiting.status, waiting.payment_status) == ("complete", "unpaid")
    assert shop.intent(client, waiting).status == "processing"
    assert waiting.invoice is None
    standin.control.settle(opened.id, succeeds=succeeds)
    assert shop.session(client, opened.id).payment_status == status
    assert shop.event_types(client)[-1] == f"checkout.session.{event}"


def test_a_session_expires_by_time_and_cannot_be_paid_then(standin: RunningStripe) -> None:
    client = standin.client()
    opened = shop.once(client)
    standin.control.advance(shop.DAY_S - 1)
    assert shop.session(client, opened.id).status == "open"
    standin.control.advance(1)
    assert shop.session(client, opened.id).status == "expired"
    assert shop.event_types(client)[-1] == "checkout.session.expired"
    with pytest.raises(InvalidRequestError, match="status of expired"):
        client.v1.checkout.sessions.expire(opened.id)


def paid(standin: RunningStripe) -> Session:
    client = standin.client()
    opened = shop.once(client)
    standin.control.pay(opened.id)
    return shop.session(client, opened.id)


def test_refunds_add_up_and_stop_at_what_was_paid(standin: RunningStripe) -> None:
    client, intent = standin.client(), str(paid(standin).payment_intent)
    first = client.v1.refunds.create({"payment_intent": intent, "amount": 1_999})
    assert (first.status, first.amount) == ("succeeded", 1_999)
    with pytest.raises(InvalidRequestError, match="greater than unrefunded"):
        client.v1.refunds.create({"payment_intent": intent, "amount": 3_002})
    client.v1.refunds.create({"payment_intent": intent})
    (charge,) = client.v1.charges.list({"payment_intent": intent}).data
    assert (charge.amount_refunded, charge.refunded) == (5_000, True)
    assert [refund.amount for refund in client.v1.refunds.list({"charge": charge.id}).data] == [
        3_001,
        1_999,
    ]
    with pytest.raises(InvalidRequestError) as refused:
        client.v1.refunds.create({"payment_intent": intent})
    assert refused.value.code == "charge_already_refunded"


def test_a_refund_that_fails_is_money_again(standin: RunningStripe) -> None:
    client, intent = standin.client(), str(paid(standin).payment_intent)
    made = client.v1.refunds.create({"payment_intent": intent})
    standin.control.fail_refund(made.id)
    (charge,) = client.v1.charges.list({"payment_intent": intent}).data
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    assert client.v1.refunds.retrieve(made.id).status == "failed"


@pytest.mark.parametrize("won", [True, False])
def test_a_dispute_takes_the_money_until_it_is_won(standin: RunningStripe, won: bool) -> None:
    client, intent = standin.client(), str(paid(standin).payment_intent)
    (charge,) = client.v1.charges.list({"payment_intent": intent}).data
    opened = standin.control.dispute(charge.id)["id"]
    (dispute,) = client.v1.disputes.list({"payment_intent": intent}).data
    assert (dispute.id, dispute.status, dispute.amount) == (opened, "needs_response", 5_000)
    assert client.v1.charges.retrieve(charge.id).disputed
    if won:
        standin.control.win_dispute(opened)
    else:
        client.v1.disputes.close(opened)
    closed = client.v1.disputes.retrieve(opened)
    assert closed.status == ("won" if won else "lost")
    assert sum(movement.net for movement in closed.balance_transactions) == (0 if won else -5_000)
    ended = shop.event_types(client)[-2:]
    assert ended == (
        ["charge.dispute.closed", "charge.dispute.funds_reinstated"]
        if won
        else ["charge.dispute.funds_withdrawn", "charge.dispute.closed"]
    )
