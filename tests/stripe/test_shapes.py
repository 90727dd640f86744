"""Every object that the flows make has the shape of the pinned API version, field by field."""

import pytest
import stripe

from deploy.embedded.stripe.shapes import API_VERSION, CLASSES
from tests.stripe import shop
from tests.stripe.running import RunningStripe
from tests.stripe.shapes import faults


def test_the_library_is_pinned_to_the_same_version() -> None:
    assert stripe.api_version == API_VERSION


def test_all_that_the_flows_make_has_stripes_shapes(standin: RunningStripe) -> None:
    client, control = standin.client(), standin.control
    opened, monthly = shop.once(client), shop.monthly(client)
    control.pay(opened.id, "failed")
    control.pay(opened.id)
    intent = str(shop.session(client, opened.id).payment_intent)
    control.fail_refund(client.v1.refunds.create({"payment_intent": intent, "amount": 10}).id)
    (charge,) = client.v1.charges.list({"payment_intent": intent, "limit": 1}).data
    control.win_dispute(control.dispute(charge.id)["id"])
    control.pay(monthly.id)
    control.next_payments("failed", times=4)
    control.advance(60 * shop.DAY_S)
    control.settle(control.pay(shop.once(client).id, "processing")["id"], succeeds=False)
    client.v1.billing_portal.sessions.create({"customer": str(opened.customer)})
    client.v1.checkout.sessions.expire(shop.once(client).id)
    made = [thing for kind in CLASSES for thing in control.all(kind)]
    made.append(client.v1.accounts.retrieve_current().to_dict())
    made += [event["data"]["object"] for event in control.all("event")]
    made += [item.to_dict() for item in shop.session(client, opened.id).line_items.data]  # type: ignore[union-attr]
    nameless = [thing for thing in made if "id" not in thing]
    assert {thing["object"] for thing in nameless} <= {"invoice"}  # of invoice.upcoming
    assert {thing["object"] for thing in made} >= set(CLASSES) - {
        "line_item",
        "plan",
        "subscription_item",
    }
    wrong = sorted({why for thing in made if "id" in thing for why in faults(thing)})
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "eaten"}, "status is 'eaten'"),
        ({"subscription": "sub_1"}, "subscription is none of Stripe's"),
        ({"amount_due": "12"}, "amount_due is '12'"),
        ({"metadata": {"a": 1}}, "metadata is"),
    ],
)
def test_a_wrong_shape_is_seen(standin: RunningStripe, change: dict[str, object], why: str) -> None:
    standin.control.pay(shop.once(standin.client()).id)
    (invoice,) = standin.control.all("invoice")
    assert faults(invoice) == []
    (said,) = faults(invoice | change)
    assert why in said
