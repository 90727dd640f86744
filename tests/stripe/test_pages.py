"""The hosted pages, used as a customer's browser does."""

from collections.abc import Iterator

import httpx
import pytest

from tests.stripe import shop
from tests.stripe.running import RunningStripe

NOTICE = "no money moves"


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


def test_the_checkout_page_says_what_is_bought_and_that_no_money_moves(
    standin: RunningStripe, browser: httpx.Client
) -> None:
    page = browser.get(str(shop.once(standin.client()).url))
    assert page.status_code == 200
    for words in (
        "$50.00",
        "Growth",
        "1,000 credits each",
        "2 packages for Design",
        "Acme",
        NOTICE,
    ):
        assert words in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text


def test_paying_leads_back_to_the_shop_with_the_session(
    standin: RunningStripe, browser: httpx.Client
) -> None:
    opened = shop.once(standin.client())
    answer = browser.post(str(opened.url), data={"action": "pay"})
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"https://shop.example/done?session={opened.id}"
    assert "was paid" in browser.get(str(opened.url)).text
    assert browser.post(str(opened.url), data={"action": "pay"}).status_code == 400


def test_a_declined_card_stays_on_the_page(standin: RunningStripe, browser: httpx.Client) -> None:
    opened = shop.monthly(standin.client())
    page = browser.post(str(opened.url), data={"action": "fail"})
    assert (page.status_code, "declined" in page.text) == (402, True)
    assert browser.post(str(opened.url), data={"action": "pay"}).status_code == 303


@pytest.mark.parametrize(
    ("button", "words"), [("arrive", "was paid"), ("bounce", "sent the debit")]
)
def test_a_bank_debit_is_let_arrive_or_come_back_on_the_same_page(
    standin: RunningStripe, browser: httpx.Client, button: str, words: str
) -> None:
    opened = shop.once(standin.client())
    assert browser.post(str(opened.url), data={"action": "later"}).status_code == 303
    assert "on its way" in browser.get(str(opened.url)).text
    assert words in browser.post(str(opened.url), data={"action": button}).text


def test_leaving_and_expiring(standin: RunningStripe, browser: httpx.Client) -> None:
    opened = shop.once(standin.client())
    assert f'href="{shop.CANCEL}"' in browser.get(str(opened.url)).text
    standin.control.advance(shop.DAY_S)
    assert browser.get(str(opened.url)).status_code == 410
    assert browser.post(str(opened.url), data={"action": "pay"}).status_code == 400


def test_an_adjustable_quantity_is_the_customers(
    standin: RunningStripe, browser: httpx.Client
) -> None:
    client = standin.client()
    item = {
        "quantity": 2,
        "price_data": shop.price_data(),
        "adjustable_quantity": {"enabled": True, "minimum": 1, "maximum": 50},
    }
    opened = shop.once(client, line_items=[item])
    for wrong in ("0", "51"):
        tried = browser.post(str(opened.url), data={"action": "pay", "quantity": wrong})
        assert tried.status_code == 400
    browser.post(str(opened.url), data={"action": "pay", "quantity": "3"})
    paid = shop.session(client, opened.id)
    assert (paid.payment_status, paid.amount_total) == ("paid", 7_500)
    fixed = shop.once(client)
    assert browser.post(str(fixed.url), data={"action": "pay", "quantity": "3"}).is_client_error


def test_what_shops_send_is_text_on_a_page(standin: RunningStripe, browser: httpx.Client) -> None:
    name = '<script>alert("x")</script>'
    product = {"name": name, "description": name}
    opened = shop.once(
        standin.client(),
        line_items=[{"quantity": 1, "price_data": shop.price_data() | {"product_data": product}}],
    )
    assert "<script" not in browser.get(str(opened.url)).text
    assert "&lt;script&gt;" in browser.get(str(opened.url)).text


def test_an_invoice_has_a_page_and_a_pdf(standin: RunningStripe, browser: httpx.Client) -> None:
    client = standin.client()
    opened = shop.once(client)
    standin.control.pay(opened.id)
    invoice = client.v1.invoices.retrieve(str(shop.session(client, opened.id).invoice))
    page = browser.get(str(invoice.hosted_invoice_url))
    for words in (str(invoice.number), "$50.00", "paid", "Acme", NOTICE):
        assert words in page.text
    pdf = browser.get(str(invoice.invoice_pdf))
    assert pdf.headers["Content-Type"] == "application/pdf"
    assert pdf.content.startswith(b"%PDF-")
    (charge,) = client.v1.charges.list({"customer": str(opened.customer)}).data
    assert "$50.00" in browser.get(str(charge.receipt_url)).text


def test_an_open_invoice_is_paid_on_its_page(standin: RunningStripe, browser: httpx.Client) -> None:
    client = standin.client()
    opened = shop.monthly(client)
    standin.control.pay(opened.id)
    standin.control.next_payments("failed")
    standin.control.advance(32 * shop.DAY_S)
    subscription = str(shop.session(client, opened.id).subscription)
    invoice = shop.newest_invoice(client, subscription)
    assert invoice.status == "open"
    browser.post(str(invoice.hosted_invoice_url), data={"action": "pay"})
    assert shop.newest_invoice(client, subscription).status == "paid"
    assert shop.subscription(client, subscription).status == "active"


def test_the_portal_cancels_resumes_and_ends(standin: RunningStripe, browser: httpx.Client) -> None:
    client = standin.client()
    opened = shop.monthly(client)
    standin.control.pay(opened.id)
    subscription = str(shop.session(client, opened.id).subscription)
    portal = client.v1.billing_portal.sessions.create(
        {"customer": str(opened.customer), "return_url": shop.CANCEL}
    )
    form = {"subscription": subscription, "action": "cancel"}
    assert "Ends" in browser.post(portal.url, data=form).text
    assert shop.subscription(client, subscription).cancel_at_period_end
    assert "Renews" in browser.post(portal.url, data=form | {"action": "resume"}).text
    other = shop.monthly(client)
    standin.control.pay(other.id)
    theirs = str(shop.session(client, other.id).subscription)
    assert browser.post(portal.url, data=form | {"subscription": theirs}).status_code == 404
    standin.control.advance(shop.HOUR_S + 1)
    assert browser.get(portal.url).status_code == 410


def test_pages_are_for_this_machine(standin: RunningStripe, browser: httpx.Client) -> None:
    opened = shop.once(standin.client())
    for headers in ({"Host": "elsewhere.example"}, {"Origin": "https://elsewhere.example"}):
        answer = browser.post(str(opened.url), data={"action": "pay"}, headers=headers)
        assert answer.status_code == 403
    assert shop.session(standin.client(), opened.id).status == "open"
