"""What every request meets: keys, parameters, idempotency, errors, pages, expand."""

import asyncio

import httpx
import pytest
import stripe
from stripe import AuthenticationError, IdempotencyError, InvalidRequestError, StripeClient

from tests.stripe import shop
from tests.stripe.running import RunningStripe


def test_another_key_is_refused_and_not_shown(standin: RunningStripe) -> None:
    other = "sk_" + "test_somebody_elses_key"
    client = StripeClient(other, base_addresses={"api": standin.url})
    with pytest.raises(AuthenticationError) as refused:
        client.v1.customers.list()
    assert refused.value.http_status == 401
    assert refused.value.request_id
    assert other not in str(refused.value)


def test_another_account_and_another_version_are_refused(standin: RunningStripe) -> None:
    client = standin.client()
    with pytest.raises(stripe.PermissionError):
        client.v1.customers.list(options={"stripe_account": "acct_other"})
    with pytest.raises(InvalidRequestError, match="version"):
        client.v1.customers.list(options={"stripe_version": "2020-08-27"})


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"nickname": "A"}, "nickname"),
        ({"metadata": {"k" * 41: "1"}}, f"metadata[{'k' * 41}]"),
        ({"metadata": {"k": "v" * 501}}, "metadata[k]"),
        ({"address": {"planet": "Mars"}}, "address[planet]"),
    ],
)
def test_what_stripe_does_not_have_is_refused_by_name(
    client: StripeClient, params: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        client.v1.customers.create(params)  # type: ignore[arg-type]
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mode": "gift"}, "Invalid mode"),
        ({"success_url": None}, "Missing required param: success_url"),
        ({"success_url": "shop"}, "Not a valid URL"),
        ({"customer": "cus_nobody"}, "No such customer: 'cus_nobody'"),
        ({"line_items": []}, "Missing required param: line_items"),
        ({"line_items": [{"quantity": 0, "price_data": shop.price_data()}]}, "quantity"),
        ({"line_items": [{"quantity": 1, "price": "price_none"}]}, "No such price"),
        ({"subscription_data": {"description": "A"}}, "can not pass"),
        ({"expires_at": 1}, "between 30 minutes and 24 hours"),
        ({"mode": "subscription"}, "can not pass"),
        ({"allow_promotion_codes": True}, "stand-in for Stripe does not do"),
        ({"customer_email": "a@b.example"}, "only specify one"),
    ],
)
def test_sessions_that_stripe_would_refuse(
    client: StripeClient, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InvalidRequestError, match=complaint):
        shop.once(client, **changes)
    assert client.v1.checkout.sessions.list().data == []


def test_one_key_makes_one_object_and_another_request_needs_another(client: StripeClient) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "customer:1"}
    first = client.v1.customers.create({"name": "Acme"}, options=options)
    again = client.v1.customers.create({"name": "Acme"}, options=options)
    assert again.id == first.id
    assert again.last_response is not None
    assert again.last_response.headers["idempotent-replayed"] == "true"
    with pytest.raises(IdempotencyError):
        client.v1.customers.create({"name": "Other"}, options=options)
    assert len(client.v1.customers.list().data) == 1


def test_a_key_is_free_again_after_a_day(standin: RunningStripe) -> None:
    client = standin.client()
    options: stripe.RequestOptions = {"idempotency_key": "customer:1"}
    first = client.v1.customers.create({"name": "Acme"}, options=options)
    standin.control.advance(2 * shop.DAY_S)
    client.v1.customers.create({"name": "Other"})
    assert client.v1.customers.create({"name": "Acme"}, options=options).id != first.id


def test_an_error_of_stripes_is_replayed_by_its_key_and_does_nothing(
    standin: RunningStripe,
) -> None:
    standin.control.faults({"kind": "error", "path": "/v1/customers", "method": "POST"})
    client = standin.client(max_network_retries=0)
    options: stripe.RequestOptions = {"idempotency_key": "customer:1"}
    for _ in range(2):
        with pytest.raises(stripe.APIError) as broken:
            client.v1.customers.create({"name": "Acme"}, options=options)
        assert broken.value.http_status == 500
    assert client.v1.customers.list().data == []


def test_a_lost_answer_is_found_again_by_its_key(standin: RunningStripe) -> None:
    standin.control.faults({"kind": "lost", "path": "/v1/customers", "method": "POST"})
    client = standin.client(max_network_retries=0)
    options: stripe.RequestOptions = {"idempotency_key": "customer:1"}
    with pytest.raises(stripe.APIError):
        client.v1.customers.create({"name": "Acme"}, options=options)
    (made,) = client.v1.customers.list().data
    assert client.v1.customers.create({"name": "Acme"}, options=options).id == made.id


def test_too_many_requests_are_said_and_kept_by_no_key(standin: RunningStripe) -> None:
    standin.control.faults({"kind": "rate_limited", "times": 1})
    client = standin.client(max_network_retries=0)
    options: stripe.RequestOptions = {"idempotency_key": "customer:1"}
    with pytest.raises(stripe.RateLimitError):
        client.v1.customers.create({"name": "Acme"}, options=options)
    assert client.v1.customers.create({"name": "Acme"}, options=options).name == "Acme"


def test_pages_and_their_order(client: StripeClient) -> None:
    made = [client.v1.customers.create({"name": str(number)}).id for number in range(7)]
    pages = client.v1.customers.list({"limit": 3})
    assert (pages.has_more, [one.id for one in pages.data]) == (True, made[:3:-1])
    assert [one.id for one in pages.auto_paging_iter()] == made[::-1]
    before = client.v1.customers.list({"limit": 2, "ending_before": made[0]})
    assert [one.id for one in before.data] == [made[2], made[1]]
    with pytest.raises(InvalidRequestError, match="No such"):
        client.v1.customers.list({"starting_after": "cus_none"})
    with pytest.raises(InvalidRequestError, match="limit"):
        client.v1.customers.list({"limit": 101})


def test_events_by_type_and_time(standin: RunningStripe) -> None:
    client = standin.client()
    shop.once(client)
    standin.control.advance(100)
    begin_s = standin.control.now_s()
    shop.customer(client)
    newest = client.v1.events.list({"created": {"gte": begin_s}}).data
    assert [event.type for event in newest] == ["customer.created"]
    older = client.v1.events.list({"created": {"lt": begin_s}, "type": "customer.*"}).data
    assert len(older) == 1
    some = client.v1.events.list({"types": ["price.created", "product.created"]}).data
    assert {event.type for event in some} == {"price.created", "product.created"}
    assert client.v1.events.retrieve(newest[0].id).data.object["object"] == "customer"


def test_expanding_nested_and_in_lists(standin: RunningStripe) -> None:
    client = standin.client()
    opened = shop.monthly(client)
    standin.control.pay(opened.id)
    paid = client.v1.checkout.sessions.retrieve(
        opened.id,
        {
            "expand": [
                "customer",
                "invoice.payments",
                "subscription.latest_invoice",
            ]
        },
    )
    assert paid.customer.name == "Acme"  # type: ignore[union-attr]
    (payment,) = paid.invoice.payments.data  # type: ignore[union-attr]
    intent = client.v1.payment_intents.retrieve(
        payment.payment.payment_intent, {"expand": ["latest_charge.refunds"]}
    )
    assert intent.latest_charge.refunds.data == []  # type: ignore[union-attr]
    assert paid.subscription.latest_invoice.status == "paid"  # type: ignore[union-attr]
    (listed,) = client.v1.invoices.list({"expand": ["data.customer"]}).data
    assert listed.customer.email == "billing@acme.example"  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["nothing", "metadata", "status", "customer.name", "a.b.c.d.e"])
def test_what_cannot_be_expanded(client: StripeClient, path: str) -> None:
    opened = shop.once(client)
    with pytest.raises(InvalidRequestError, match="expand"):
        client.v1.checkout.sessions.retrieve(opened.id, {"expand": [path]})


def test_a_deleted_customer_is_answered_as_such_and_not_listed(client: StripeClient) -> None:
    buyer = shop.customer(client)
    opened = shop.once(client, buyer)
    client.v1.customers.delete(buyer)
    assert client.v1.customers.retrieve(buyer).to_dict() == {
        "id": buyer,
        "object": "customer",
        "deleted": True,
    }
    assert client.v1.customers.list().data == []
    expanded = client.v1.checkout.sessions.retrieve(opened.id, {"expand": ["customer"]})
    assert expanded.customer.deleted  # type: ignore[union-attr]
    with pytest.raises(InvalidRequestError):
        client.v1.customers.update(buyer, {"name": "B"})


def test_metadata_is_merged_and_unset(client: StripeClient) -> None:
    buyer = shop.customer(client)
    updated = client.v1.customers.update(buyer, {"metadata": {"more": "1"}})
    assert updated.metadata is not None
    assert updated.metadata.to_dict() == {**shop.OURS, "more": "1"}
    less = client.v1.customers.update(buyer, {"metadata": {"more": ""}})
    assert less.metadata is not None
    assert less.metadata.to_dict() == shop.OURS
    none = client.v1.customers.update(buyer, {"metadata": ""})
    assert none.metadata is not None
    assert none.metadata.to_dict() == {}


def test_what_is_not_there(client: StripeClient) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        client.v1.invoices.retrieve("in_none")
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")
    with pytest.raises(InvalidRequestError, match="Unrecognized request URL"):
        client.v1.coupons.list()


def test_a_price_of_the_catalog_can_be_sold(client: StripeClient) -> None:
    product = client.v1.products.create({"name": "Growth"})
    price = client.v1.prices.create(
        {"product": product.id, "currency": "eur", "unit_amount": 900, "lookup_key": "growth"}
    )
    opened = shop.once(client, line_items=[{"price": price.id, "quantity": 3}])
    assert (opened.amount_total, opened.currency) == (2_700, "eur")
    client.v1.prices.update(price.id, {"active": False})
    with pytest.raises(InvalidRequestError, match="inactive"):
        shop.once(client, line_items=[{"price": price.id, "quantity": 3}])


def test_the_account_and_a_portal_session(client: StripeClient) -> None:
    assert client.v1.accounts.retrieve_current().id.startswith("acct_")
    portal = client.v1.billing_portal.sessions.create(
        {"customer": shop.customer(client), "return_url": shop.CANCEL}
    )
    assert httpx.get(portal.url).status_code == 200


async def test_the_same_without_blocking(standin: RunningStripe) -> None:
    async with standin.asynchronous() as client:
        made = await asyncio.gather(
            *(client.v1.customers.create_async({"name": str(number)}) for number in range(5))
        )
        pages = await client.v1.customers.list_async({"limit": 2})
        assert {one.id async for one in pages.auto_paging_iter()} == {one.id for one in made}
        with pytest.raises(InvalidRequestError):
            await client.v1.customers.retrieve_async("cus_none")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Stripe-Stand-In-Token": "guessed"},
        {"Stripe-Stand-In-Token": "control_of_the_tests", "Origin": "https://elsewhere.example"},
        {"Stripe-Stand-In-Token": "control_of_the_tests", "Host": "elsewhere.example"},
    ],
)
def test_nobody_else_controls_it(standin: RunningStripe, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{standin.url}/_control/clock", json={"advance_s": 9}, headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_control_says_what_it_does_not_understand(standin: RunningStripe) -> None:
    for path, given in [
        ("/clock", {"advance_s": -1}),
        ("/clock", {"advance_s": "soon"}),
        ("/faults", {"faults": [{"kind": "flood"}]}),
        ("/webhooks/rules", {"rules": [{"action": "burn"}]}),
        ("/checkout/cs_none/pay", {}),
        ("/payments", {"outcome": "maybe"}),
    ]:
        with pytest.raises(httpx.HTTPStatusError):
            standin.control.post(path, **given)
