"""Subscriptions: first invoice, renewals, dunning, ends, several payments."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from stripe import CardError, InvalidRequestError, StripeClient

from deploy.embedded.stripe.subscriptions import period_end
from tests.stripe import shop
from tests.stripe.running import RunningStripe


def subscribed(standin: RunningStripe, outcome: str = "succeeded") -> str:
    client = standin.client()
    opened = shop.monthly(client)
    standin.control.pay(opened.id, outcome)
    return str(shop.session(client, opened.id).subscription)


def to_period_end(standin: RunningStripe, subscription: str, and_s: int = 0) -> None:
    item = shop.subscription(standin.client(), subscription)["items"].data[0]
    standin.control.advance_to(item.current_period_end + and_s)


def status(client: StripeClient, subscription: str) -> str:
    return str(shop.subscription(client, subscription).status)


def test_the_first_invoice_is_paid_with_the_session(standin: RunningStripe) -> None:
    client = standin.client()
    opened = shop.monthly(client)
    standin.control.pay(opened.id)
    paid = shop.session(client, opened.id)
    subscription = shop.subscription(client, str(paid.subscription))
    invoice = client.v1.invoices.retrieve(str(paid.invoice), {"expand": ["payments"]})
    assert (paid.payment_status, subscription.status) == ("paid", "active")
    assert subscription.metadata["metering_purchase"] == "pur_1"
    assert (invoice.billing_reason, invoice.status) == ("subscription_create", "paid")
    assert invoice.parent is not None
    details = invoice.parent.subscription_details
    assert details is not None
    assert details.subscription == subscription.id
    assert details.metadata is not None
    assert details.metadata["metering_purchase"] == "pur_1"
    (line,) = invoice.lines.data
    (item,) = subscription["items"].data
    assert (line.quantity, line.amount) == (2, 5_000)
    assert line.period.start == item.current_period_start
    assert line.period.end == item.current_period_end
    assert "invoice.paid" in shop.event_types(client)


def test_a_renewal_is_drafted_and_an_hour_later_paid(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    first = shop.newest_invoice(client, subscription)
    to_period_end(standin, subscription)
    draft = shop.newest_invoice(client, subscription)
    assert (draft.billing_reason, draft.status) == ("subscription_cycle", "draft")
    assert (draft.number, draft.hosted_invoice_url, draft.invoice_pdf) == (None, None, None)
    assert draft.lines.data[0].period.start == first.lines.data[0].period.end
    assert (draft.period_start, draft.period_end) == (
        first.lines.data[0].period.start,
        first.lines.data[0].period.end,
    )
    standin.control.advance(shop.HOUR_S)
    paid = client.v1.invoices.retrieve(draft.id)
    assert paid.status == "paid"
    assert paid.number
    assert paid.status_transitions.finalized_at == draft.created + shop.HOUR_S


def test_a_year_passes_in_order(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    standin.control.advance(365 * shop.DAY_S + shop.HOUR_S)
    found = list(
        client.v1.invoices.list({"subscription": subscription, "limit": 5}).auto_paging_iter()
    )
    assert len(found) == 13
    assert {invoice.status for invoice in found} == {"paid"}
    periods = [invoice.lines.data[0].period for invoice in reversed(found)]
    assert all(before.end == after.start for before, after in pairwise(periods))
    created = [event.created for event in client.v1.events.list({"limit": 100}).data]
    assert created == sorted(created, reverse=True)


def test_a_failed_renewal_is_tried_again(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    standin.control.next_payments("failed", times=2)
    to_period_end(standin, subscription, shop.HOUR_S)
    invoice = shop.newest_invoice(client, subscription)
    assert (invoice.status, invoice.attempt_count) == ("open", 1)
    assert invoice.next_payment_attempt is not None
    assert status(client, subscription) == "past_due"
    standin.control.advance(3 * shop.DAY_S)
    assert client.v1.invoices.retrieve(invoice.id).attempt_count == 2
    standin.control.advance(5 * shop.DAY_S)
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"
    assert status(client, subscription) == "active"


@pytest.mark.parametrize(
    ("of_subscription", "of_invoice"),
    [("canceled", "open"), ("unpaid", "uncollectible"), ("canceled", "void")],
)
def test_dunning_ends_as_it_was_set(
    standin: RunningStripe, of_subscription: str, of_invoice: str
) -> None:
    client, subscription = standin.client(), subscribed(standin)
    standin.control.dunning(subscription=of_subscription, invoice=of_invoice)
    standin.control.next_payments("failed", times=4)
    to_period_end(standin, subscription, 16 * shop.DAY_S)
    invoice = shop.newest_invoice(client, subscription)
    assert (invoice.status, invoice.attempt_count) == (of_invoice, 4)
    assert invoice.next_payment_attempt is None
    assert status(client, subscription) == of_subscription


def test_an_unpaid_subscription_drafts_what_nobody_collects(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    standin.control.dunning(subscription="unpaid", invoice="open")
    standin.control.next_payments("failed", times=4)
    to_period_end(standin, subscription, 16 * shop.DAY_S)
    assert status(client, subscription) == "unpaid"
    owed = shop.newest_invoice(client, subscription)
    to_period_end(standin, subscription, shop.DAY_S)
    assert shop.newest_invoice(client, subscription).status == "draft"
    client.v1.invoices.pay(owed.id)
    assert client.v1.invoices.retrieve(owed.id).status == "paid"


def test_cancel_at_period_end_and_resume(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    ending = client.v1.subscriptions.update(subscription, {"cancel_at_period_end": True})
    assert ending.cancel_at == ending["items"].data[0].current_period_end
    resumed = client.v1.subscriptions.update(subscription, {"cancel_at_period_end": False})
    assert (resumed.cancel_at, resumed.canceled_at) == (None, None)
    to_period_end(standin, subscription)
    assert status(client, subscription) == "active"
    client.v1.subscriptions.update(subscription, {"cancel_at_period_end": True})
    to_period_end(standin, subscription)
    assert status(client, subscription) == "canceled"
    invoices = client.v1.invoices.list({"subscription": subscription}).data
    assert len(invoices) == 2
    assert client.v1.subscriptions.list().data == []
    assert len(client.v1.subscriptions.list({"status": "all"}).data) == 1


def test_ended_at_once_nothing_is_collected_any_more(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    to_period_end(standin, subscription)
    assert client.v1.subscriptions.cancel(subscription).status == "canceled"
    standin.control.advance(60 * shop.DAY_S)
    invoice = shop.newest_invoice(client, subscription)
    assert (invoice.status, invoice.auto_advance) == ("draft", False)
    assert shop.event_types(client)[-1] == "customer.subscription.deleted"


def test_a_deleted_customer_ends_the_subscription(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    buyer = str(shop.subscription(client, subscription).customer)
    client.v1.customers.delete(buyer)
    assert client.v1.customers.retrieve(buyer).deleted
    assert status(client, subscription) == "canceled"
    standin.control.advance(60 * shop.DAY_S)
    with pytest.raises(InvalidRequestError, match="No such customer"):
        shop.once(client, buyer)


def test_an_invoice_is_paid_by_several_payments(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    to_period_end(standin, subscription)
    draft = shop.newest_invoice(client, subscription)
    standin.control.pay_invoice(draft.id, [2_000, 3_000], fails_after=1)
    partly = shop.newest_invoice(client, subscription)
    assert (partly.status, partly.amount_paid, partly.amount_remaining) == ("open", 2_000, 3_000)
    client.v1.invoices.pay(draft.id)
    paid = shop.newest_invoice(client, subscription)
    assert (paid.status, paid.amount_paid) == ("paid", 5_000)
    payments = client.v1.invoice_payments.list(
        {"invoice": draft.id, "expand": ["data.payment.payment_intent"]}
    ).data
    assert sorted(payment.amount_paid or 0 for payment in payments) == [2_000, 3_000]
    intents = [payment.payment.payment_intent for payment in payments]
    assert sum(intent.amount_received for intent in intents) == 5_000  # type: ignore[union-attr]


def test_a_slow_renewal_is_settled_later(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    standin.control.next_payments("processing")
    to_period_end(standin, subscription, shop.HOUR_S)
    invoice = shop.newest_invoice(client, subscription)
    assert (invoice.status, status(client, subscription)) == ("open", "active")
    standin.control.settle_invoice(invoice.id, succeeds=False)
    assert status(client, subscription) == "past_due"
    standin.control.advance(3 * shop.DAY_S)
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"


def test_a_slow_first_payment_makes_the_subscription_active_meanwhile(
    standin: RunningStripe,
) -> None:
    client = standin.client()
    opened = shop.monthly(client)
    standin.control.pay(opened.id, "processing")
    waiting = shop.session(client, opened.id)
    assert waiting.payment_status == "unpaid"
    assert status(client, str(waiting.subscription)) == "active"
    standin.control.settle(opened.id, succeeds=True)
    assert shop.session(client, opened.id).payment_status == "paid"
    assert client.v1.invoices.retrieve(str(waiting.invoice)).status == "paid"


def test_an_invoice_is_voided_paid_elsewhere_or_declined(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    standin.control.next_payments("failed", times=2)
    to_period_end(standin, subscription, shop.HOUR_S)
    invoice = shop.newest_invoice(client, subscription)
    with pytest.raises(CardError, match="declined"):
        client.v1.invoices.pay(invoice.id)
    assert client.v1.invoices.retrieve(invoice.id).attempt_count == 2
    client.v1.invoices.mark_uncollectible(invoice.id)
    assert status(client, subscription) == "active"
    paid = client.v1.invoices.pay(invoice.id, {"paid_out_of_band": True})
    assert (paid.status, paid.amount_paid) == ("paid", 5_000)
    with pytest.raises(InvalidRequestError):
        client.v1.invoices.void_invoice(invoice.id)


def test_the_next_invoice_can_be_looked_at_beforehand(standin: RunningStripe) -> None:
    client, subscription = standin.client(), subscribed(standin)
    preview = client.v1.invoices.create_preview({"subscription": subscription})
    to_period_end(standin, subscription)
    invoice = shop.newest_invoice(client, subscription)
    assert preview.amount_due == invoice.amount_due
    assert preview.lines.data[0].period == invoice.lines.data[0].period
    assert preview.billing_reason == "upcoming"


@pytest.mark.parametrize(
    ("begin", "periods", "end"),
    [
        ("2026-01-31", 1, "2026-02-28"),
        ("2026-01-31", 2, "2026-03-31"),
        ("2028-01-31", 1, "2028-02-29"),
        ("2026-12-15", 1, "2027-01-15"),
    ],
)
def test_a_period_ends_on_the_day_it_began_or_the_last_of_the_month(
    begin: str, periods: int, end: str
) -> None:
    price = {"recurring": {"interval": "month", "interval_count": 1}}
    anchor_s = int(datetime.fromisoformat(begin).replace(tzinfo=UTC).timestamp())
    ends = datetime.fromtimestamp(period_end(anchor_s, price, periods), UTC)
    assert f"{ends:%Y-%m-%d}" == end
