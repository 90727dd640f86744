"""Buying by a partner, from the request to the grants, whatever happens on the way."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete

from api.storage.purchases import BoughtGrant, Invoice, ProviderEvent, Purchase
from deploy.embedded.partner.process import new_secret
from deploy.embedded.partner.serving import BOOKS_FILE
from tests.partners.conftest import Reference
from tests.partners.shop import CREDITS_MICRO, PARTNER, PRICE_MINOR, Shop, open_shop


@pytest.fixture(scope="module")
def lasting_shop(
    lasting_reference: Reference, tmp_path_factory: pytest.TempPathFactory, migrated: Path
) -> Iterator[Shop]:
    with open_shop(lasting_reference, tmp_path_factory.mktemp("shop"), migrated) as opened:
        yield opened


@pytest.fixture
def shop(lasting_shop: Shop) -> Shop:
    """Nothing was bought yet."""
    lasting_shop.forget()
    return lasting_shop


def test_a_charge_that_succeeds_is_granted_at_once_and_once(shop: Shop) -> None:
    shop.bought(quantity=3)
    (charge,) = shop.charges()
    assert charge["amount_minor"] == 3 * PRICE_MINOR
    assert shop.grants() == {charge["charge_id"]: (3 * CREDITS_MICRO, 3 * CREDITS_MICRO)}
    (invoice,) = shop.get("invoices")["items"]
    assert invoice["amount_minor"] == 3 * PRICE_MINOR
    assert shop.unmatched() == []


def test_a_request_that_is_repeated_is_one_charge(shop: Shop) -> None:
    key = {"Idempotency-Key": "buy-1"}
    first, again = shop.buy(**key), shop.buy(**key)
    assert first.json()["purchase"]["id"] == again.json()["purchase"]["id"]
    assert again.json()["status"] == "succeeded"
    assert len(shop.charges()) == len(shop.grants()) == 1


def test_a_declined_charge_is_told_in_the_partners_words(shop: Shop) -> None:
    shop.reference.control("next", outcome="declined", message="The limit is used up.")
    answer = shop.buy()
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "payment_declined"
    assert answer.json()["error"]["message"] == "The limit is used up."
    assert shop.purchase().state == "failed"
    assert shop.grants() == {}


@pytest.mark.parametrize("kind", ["one_time", "monthly"])
@pytest.mark.parametrize("outcome", ["succeed", "decline"])
def test_a_pending_charge_waits_for_the_webhook(shop: Shop, kind: str, outcome: str) -> None:
    shop.reference.control("next", outcome="pending")
    answer = shop.buy(kind)
    assert (answer.status_code, answer.json()["status"]) == (201, "pending")
    assert shop.purchase().state == "awaiting_payment"
    assert shop.grants() == {}
    (charge,) = shop.charges()
    shop.reference.control(f"charges/{charge['charge_id']}/{outcome}")
    shop.until_worked_off()
    if outcome == "succeed":
        assert shop.purchase().state == "paid"
        assert list(shop.grants()) == [charge["charge_id"]]
    else:
        assert shop.purchase().state == "failed"
        assert shop.grants() == {}


@pytest.mark.parametrize("fault", ["silent_after", "silent_before", "error_after", "garbage_after"])
def test_an_answer_that_is_lost_is_asked_for_again(shop: Shop, fault: str) -> None:
    shop.reference.control("next", fault=fault)
    shop.bought()
    assert len(shop.charges()) == len(shop.grants()) == 1


def test_a_purchase_waits_until_it_is_known_what_became_of_it(shop: Shop) -> None:
    shop.reference.control("next", fault="error_after", times=3)
    shop.reference.control("away", away=True)
    answer = shop.buy()
    assert (answer.status_code, answer.json()["status"]) == (201, "pending")
    assert shop.purchase().state == "awaiting_payment"
    assert shop.charges() == []
    shop.reference.control("away", away=False)
    shop.look_now()
    shop.until(lambda: shop.purchase().state == "paid")
    assert len(shop.charges()) == len(shop.grants()) == 1


def test_a_refusal_for_good_ends_the_purchase(shop: Shop) -> None:
    shop.reference.control(
        "next", fault="refuse", status=404, code="unknown_organization", message="secret words"
    )
    answer = shop.buy()
    assert answer.status_code == 402
    assert "secret words" not in answer.text
    assert shop.purchase().state == "failed"
    assert shop.charges() == []
    # The next one is a purchase of its own.
    shop.bought()


def test_a_charge_that_shows_up_after_a_refusal_is_granted_all_the_same(shop: Shop) -> None:
    """The partner broke the contract; its customer has paid."""
    shop.reference.control("next", fault="refuse", status=400, code="invalid_request")
    assert shop.buy().status_code == 402
    purchase = shop.purchase()
    request = _request_of(shop, purchase.id)
    answer = _ask(shop, "POST", "/charges", request)
    assert answer["status"] == "succeeded"
    shop.forge("charge.succeeded", purchase.id, answer["charge_id"])
    shop.until(lambda: shop.purchase().state == "paid")
    assert list(shop.grants()) == [answer["charge_id"]]


def test_each_renewal_is_one_grant_of_its_period(shop: Shop) -> None:
    purchase_id = shop.bought("monthly", 2)
    subscription = shop.subscription()
    assert subscription.status == "active"
    for number in (2, 3):
        shop.reference.control(f"subscriptions/{subscription.provider_id}/renew")
        shop.until(lambda number=number: len(shop.grants()) == number)
    shop.reference.control("webhooks/repeat")
    shop.until_worked_off()
    assert list(shop.grants().values()) == [(2 * CREDITS_MICRO, 2 * CREDITS_MICRO)] * 3
    charges = {charge["charge_id"]: charge for charge in shop.charges()}
    assert set(shop.grants()) == set(charges)
    assert shop.subscription().current_period_end is not None
    (listed,) = shop.get("purchases")["items"]
    assert listed["id"] == purchase_id
    assert shop.unmatched() == []


def test_a_renewal_that_is_declined_grants_nothing(shop: Shop) -> None:
    shop.bought("monthly")
    provider_id = shop.subscription().provider_id
    shop.reference.control(f"subscriptions/{provider_id}/renew", outcome="declined")
    shop.until(lambda: shop.subscription().status == "past_due")
    assert len(shop.grants()) == 1


def test_a_renewal_that_is_pending_is_confirmed_or_revoked(shop: Shop) -> None:
    shop.bought("monthly")
    provider_id = shop.subscription().provider_id
    for outcome, left in (("succeed", 6), ("decline", 6)):
        shop.reference.control(f"subscriptions/{provider_id}/renew", outcome="pending")
        shop.until_worked_off()
        newest = shop.charges()[-1]
        shop.reference.control(f"charges/{newest['charge_id']}/{outcome}")
        shop.until_worked_off()
        assert shop.left() == left * CREDITS_MICRO


def test_a_subscription_is_canceled_and_resumed_here(shop: Shop) -> None:
    purchase_id = shop.bought("monthly")
    where = f"subscriptions/{purchase_id}"
    assert shop.post(f"{where}/cancel", {}).json()["cancel_at_period_end"] is True
    assert shop.reference.state()["subscriptions"][0]["cancel_at_period_end"] is True
    assert shop.post(f"{where}/resume", {}).json()["cancel_at_period_end"] is False
    assert shop.reference.state()["subscriptions"][0]["cancel_at_period_end"] is False


def test_a_subscription_that_ends_at_the_partner_ends_here(shop: Shop) -> None:
    purchase_id = shop.bought("monthly")
    shop.post(f"subscriptions/{purchase_id}/cancel", {})
    provider_id = shop.subscription().provider_id
    shop.reference.control(f"subscriptions/{provider_id}/renew")
    shop.until(lambda: shop.subscription().status == "canceled")
    assert shop.subscription().ended_at is not None
    assert shop.left() == 3 * CREDITS_MICRO, "what was paid stays"


def test_a_group_that_is_deleted_is_charged_no_more(
    reference: Reference, tmp_path: Path, migrated: Path
) -> None:
    with open_shop(reference, tmp_path, migrated) as shop:
        _delete_the_group(shop)


def _delete_the_group(shop: Shop) -> None:
    shop.bought("monthly")
    where = "/v1/organizations/org_a/groups/lab"
    assert shop.client.delete(where, params={"confirm_name": "Lab"}).status_code == 204
    shop.served.app.state.api.desk.inbox.wake()
    shop.until(lambda: shop.reference.state()["subscriptions"][0]["status"] == "canceled")
    shop.until(lambda: shop.subscription().status == "canceled")


@pytest.mark.parametrize("mode", ["deliver", "duplicate", "hold"])
def test_refunds_converge_in_whatever_order_they_are_told(shop: Shop, mode: str) -> None:
    shop.bought(quantity=3)
    (charge,) = shop.charges()
    shop.reference.control("webhooks", mode=mode)
    for amount in (700, 1, 299):
        shop.reference.control(f"charges/{charge['charge_id']}/refund", amount_minor=amount)
    if mode == "hold":
        shop.reference.control("webhooks/release", order="reversed")
    shop.until_worked_off()
    shop.until(lambda: shop.left() == 2 * CREDITS_MICRO)
    shop.reference.control(f"charges/{charge['charge_id']}/refund")
    if mode == "hold":
        shop.reference.control("webhooks/release", order="as_made")
    shop.until(lambda: shop.left() == 0)
    assert shop.unmatched() == []


@pytest.mark.parametrize(
    ("field", "value"), [("amount_minor", 1), ("currency", "EUR"), ("packages", 4)]
)
def test_a_charge_that_does_not_fit_what_was_sold_is_put_aside(
    shop: Shop, field: str, value: Any
) -> None:
    shop.reference.control("next", outcome="pending")
    assert shop.buy().json()["status"] == "pending"
    (charge,) = shop.charges()
    shop.reference.control(f"charges/{charge['charge_id']}/succeed")
    _tamper(shop, charge["charge_id"], **{field: value, "status": "succeeded"})
    shop.look_now()
    shop.until(lambda: len(shop.unmatched()) == 1)
    assert shop.unmatched()[0].code == "does_not_fit"


@pytest.mark.parametrize(
    "change",
    [
        {"purchase_id": "other"},
        {"organization_id": "org_b"},
        {"refunded_minor": 1_000_000},
        {"created_at": "0001-01-01T00:00:00Z"},
    ],
)
def test_an_answer_that_contradicts_itself_changes_nothing(
    shop: Shop, change: dict[str, Any]
) -> None:
    shop.bought()
    before, revision = shop.grants(), shop.purchase().revision
    (charge,) = shop.charges()
    _tamper(shop, charge["charge_id"], **change)
    shop.forge("charge.refunded", shop.purchase().id, charge["charge_id"])
    shop.until(lambda: any(event.attempts for event in shop.rows(ProviderEvent)))
    assert (shop.grants(), shop.purchase().revision) == (before, revision)


def test_money_for_a_purchase_that_is_not_here_is_put_aside(shop: Shop) -> None:
    shop.bought()
    lost = shop.purchase().id
    with shop.served.control.store.write() as session:
        for table in (BoughtGrant, Invoice, Purchase):
            session.execute(delete(table))
    shop.forge("charge.refunded", lost, "pch_1")
    shop.until(lambda: len(shop.unmatched()) == 1)
    assert (shop.unmatched()[0].provider, shop.unmatched()[0].object_id) == (PARTNER, lost)


@pytest.mark.parametrize("purchase_id", ["buy_nobody", "../../charges?x=#", "..", "buy/1"])
def test_a_claim_that_the_partner_itself_does_not_know_alarms_nobody(
    shop: Shop, purchase_id: str
) -> None:
    shop.forge("charge.refunded", purchase_id, "pch_1")
    shop.until_worked_off()
    assert shop.unmatched() == []
    assert all("ignored" in event.problem for event in shop.rows(ProviderEvent))
    assert (shop.reconcile().failures, shop.unmatched()) == ([], [])


def test_a_type_that_is_not_known_is_kept_and_does_nothing(shop: Shop) -> None:
    told = shop.reference.control("webhooks/forge", type="invoice.printed", data={"a": 1})
    assert told["status"] == 200
    shop.until_worked_off()
    (event,) = shop.rows(ProviderEvent)
    assert "ignored" in event.problem
    assert shop.unmatched() == []


FORGED = [
    ({"secret": new_secret()}, "No matching signature"),
    ({"age_s": 400}, "too old"),
    ({"age_s": -400}, "too new"),
]


def test_a_forged_webhook_is_refused_and_not_kept(shop: Shop) -> None:
    data = {"purchase_id": "x", "organization_id": "org_a"}
    # Signed well, but with the secret of the other direction: a request of ours, sent back to us.
    reflected = ({"secret": shop.reference.keys.signing}, "No matching signature")
    for forged, said in [*FORGED, reflected]:
        told = shop.reference.control("webhooks/forge", type="charge.refunded", data=data, **forged)
        assert told["status"] == 401
        assert "bad_signature" in told["body"]
        assert said in told["body"]
    for path in ("unknown", "Reference", "reference/", "reference/more", ""):
        answer = httpx.post(f"{shop.served.url}/webhooks/partners/{path}", content=b"{}")
        assert answer.status_code in (401, 404, 405, 307)
    assert shop.rows(ProviderEvent) == []


UNFIT: list[dict[str, Any]] = [
    {},
    {"purchase_id": "buy_1"},
    {"purchase_id": "", "organization_id": "org_a"},
    {"purchase_id": "a\x00b", "organization_id": "org_a"},
    {"purchase_id": "a" * 300, "organization_id": "org_a"},
    {"purchase_id": 1, "organization_id": "org_a"},
]


def test_what_is_signed_and_does_not_fit_is_told_so(shop: Shop) -> None:
    for data in UNFIT:
        told = shop.reference.control("webhooks/forge", type="charge.succeeded", data=data)
        assert told["status"] == 400
        assert "invalid_request" in told["body"]
    assert shop.rows(ProviderEvent) == []


def test_a_body_that_is_too_large_is_not_read(shop: Shop) -> None:
    answer = httpx.post(shop.webhook_url, content=b"x" * (256 * 1024 + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_the_portal_is_the_partners(shop: Shop) -> None:
    shop.bought("monthly")
    answer = shop.post("portal", {})
    assert answer.status_code == 201, answer.text
    page = httpx.get(answer.json()["url"])
    assert page.status_code == 200
    assert "1,000 credits" in page.text
    assert "No money moves" in page.text
    shop.reference.control("away", away=True)
    assert shop.post("portal", {}).status_code == 503


def test_a_button_of_the_portal_is_heard_here(shop: Shop) -> None:
    purchase_id = shop.bought("monthly")
    url = shop.post("portal", {}).json()["url"]
    assert httpx.post(f"{url}/{purchase_id}/cancel").status_code == 303
    shop.until(lambda: shop.subscription().cancel_at_period_end)


# ---- helpers


def _request_of(shop: Shop, purchase_id: str) -> dict[str, Any]:
    return {
        "purchase_id": purchase_id,
        "organization_id": "org_a",
        "pool_kind": "group",
        "pool_id": "lab",
        "kind": "one_time",
        "package_id": "pkg",
        "description": "1,000 credits",
        "packages": 3,
        "credits_micro": 3 * CREDITS_MICRO,
        "amount_minor": 3 * PRICE_MINOR,
        "currency": "USD",
    }


def _ask(shop: Shop, method: str, target: str, body: dict[str, Any]) -> dict[str, Any]:
    """As our client would, by hand."""
    import json

    from api.payments.partners.signing import signed_headers

    text = json.dumps(body)
    headers = signed_headers(text, [shop.reference.keys.signing]) | {
        "idempotency-key": "by-hand",
        "metering-contract-version": "1",
    }
    answer = httpx.request(
        method, shop.reference.partner.base + target, content=text, headers=headers
    )
    answer.raise_for_status()
    told: dict[str, Any] = answer.json()
    return told


def _tamper(shop: Shop, charge_id: str, **fields: Any) -> None:
    """Makes the partner say something else of a charge than what happened."""
    import json

    database = sqlite3.connect(shop.reference.directory / BOOKS_FILE, timeout=30)
    row = database.execute("SELECT document FROM charges WHERE charge_id = ?", (charge_id,))
    document = json.loads(row.fetchone()[0]) | fields
    database.execute(
        "UPDATE charges SET document = ? WHERE charge_id = ?", (json.dumps(document), charge_id)
    )
    database.commit()
    database.close()
