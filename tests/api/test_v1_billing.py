"""`/v1/…/billing` and its neighbours over HTTP: who may do what, and what a repeat answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from api.rules.groups import create_group
from api.rules.organizations import change_settings, settings_of
from api.rules.websites import create_website
from api.storage.purchases import Purchase
from tests.api.conftest import ADMIN
from tests.api.documented import check
from tests.api.seen import actions
from tests.api.serving import Served
from tests.api.shop import BUY, LAB, ORG, WEB, CashTill, code, invoice, subscribe


@pytest.fixture
def admin(selling: Served, till: CashTill) -> Iterator[httpx.Client]:
    with selling.client("admin", event_hooks={"response": [check]}) as client:
        yield client


def purchases(selling: Served) -> int:
    with selling.control.store.read() as session:
        return session.scalar(select(func.count()).select_from(Purchase)) or 0


def test_a_group_without_billing_is_shown_and_enabled_once(
    admin: httpx.Client, selling: Served
) -> None:
    with selling.control.change("org_a", ADMIN) as change:
        create_group(change, "New", "new")
        create_website(change, "https://Shop.Example.com/", "new", "web_2")
        create_website(change, "Blog", "new", "web_1")
    before = admin.get(f"{ORG}/groups/new/billing").json()
    assert (before["profile"], before["partner_managed"]) == (None, False)
    assert before["pool"] == {"kind": "group", "id": "new", "name": "New"}
    assert [(row["id"], row["icon_url"]) for row in before["websites"]] == [
        ("web_1", None),
        ("web_2", "https://shop.example.com/favicon.ico"),
    ]
    assert code(admin.post(f"{ORG}/groups/new/purchases", json=BUY)) == (409, "billing_not_enabled")
    first = admin.post(f"{ORG}/groups/new/billing", json={})
    again = admin.post(f"{ORG}/groups/new/billing", json={})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert admin.get(f"{ORG}/groups/new/billing").json()["profile"] == first.json()


def test_what_was_bought_is_shown_also_while_the_figures_are_away(
    admin: httpx.Client, selling: Served
) -> None:
    ids = [
        admin.post(f"{LAB}/purchases", json=BUY | {"kind": kind}).json()["purchase"]["id"]
        for kind in ("monthly", "one_time", "one_time")
    ]
    subscribe(selling.control, ids[0])
    with selling.control.store.write() as session:
        session.get_one(Purchase, ("org_a", ids[1])).state = "paid"
    shown = admin.get(f"{LAB}/billing").json()
    assert [shown[kind]["packages"] for kind in ("monthly", "one_time")] == [2, 2]
    assert [row["id"] for row in shown["subscriptions"]] == [ids[0]]
    assert shown["subscriptions"][0]["amount_text"] == "20.00 USD"
    assert [row["id"] for row in shown["waiting"]] == [ids[2]]
    assert shown["waiting"][0]["checkout_url"]
    assert shown["monthly"]["total_micro"] is None
    assert shown["figures_missing"]


def test_a_purchase_leads_to_the_checkout_and_back(
    admin: httpx.Client, selling: Served, till: CashTill
) -> None:
    answer = admin.post(f"{LAB}/purchases", json=BUY)
    assert answer.status_code == 201
    bought = answer.json()
    assert (bought["status"], bought["checkout_url"]) == ("redirect", "https://pay.example/cs_0")
    purchase_id = bought["purchase"]["id"]
    assert bought["purchase"]["state"] == "awaiting_payment"
    assert till.returns is not None
    assert till.returns.success_url.startswith(selling.app.state.api.options.base_url)
    assert till.returns.success_url.endswith(f"?purchase={purchase_id}&checkout=success")
    waiting = admin.get(f"{LAB}/purchases/{purchase_id}").json()
    assert waiting["state"] == "awaiting_payment"
    till.has_paid = True
    paid = admin.get(f"{LAB}/purchases/{purchase_id}").json()
    assert (paid["state"], paid["checkout_url"]) == ("paid", None)
    looks = till.asked.count(("look", purchase_id))
    admin.get(f"{LAB}/purchases/{purchase_id}")
    assert till.asked.count(("look", purchase_id)) == looks == 2


def test_whoever_asks_too_often_sees_what_is_known(
    admin: httpx.Client, selling: Served, till: CashTill
) -> None:
    purchase_id = admin.post(f"{LAB}/purchases", json=BUY).json()["purchase"]["id"]
    selling.app.state.api.limits._per_minute["looks"] = 2
    for _ in range(4):
        assert admin.get(f"{LAB}/purchases/{purchase_id}").status_code == 200
    assert till.asked.count(("look", purchase_id)) == 2
    till.is_away = "before"
    selling.app.state.api.limits._per_minute["looks"] = 1_000
    assert admin.get(f"{LAB}/purchases/{purchase_id}").json()["state"] == "awaiting_payment"


def test_a_repeat_is_the_same_purchase_and_checkout(
    admin: httpx.Client, selling: Served, till: CashTill
) -> None:
    key = {"Idempotency-Key": "buy-1"}
    first = admin.post(f"{LAB}/purchases", json=BUY, headers=key).json()
    again = admin.post(f"{LAB}/purchases", json=BUY, headers=key).json()
    assert first == again
    assert till.asked == [("begin", first["purchase"]["id"])]
    other = admin.post(f"{LAB}/purchases", json=BUY | {"quantity": 3}, headers=key)
    assert code(other) == (422, "idempotency_key_reused")
    website = admin.post(f"{WEB}/purchases", json=BUY, headers=key)
    assert code(website) == (422, "idempotency_key_reused")
    assert purchases(selling) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_repeat_goes_on_with_what_a_cut_off_try_left(
    admin: httpx.Client, selling: Served, till: CashTill, moment: Any
) -> None:
    key = {"Idempotency-Key": "buy-1"}
    till.is_away = moment
    assert admin.post(f"{LAB}/purchases", json=BUY, headers=key).status_code == 503
    till.is_away = ""
    bought = admin.post(f"{LAB}/purchases", json=BUY, headers=key).json()
    assert (bought["status"], bought["checkout_url"]) == ("redirect", "https://pay.example/cs_0")
    assert purchases(selling) == len(till.sessions) == 1


def test_the_same_key_at_the_same_moment_buys_once(
    admin: httpx.Client, selling: Served, till: CashTill
) -> None:
    def buy(_: int) -> httpx.Response:
        return admin.post(f"{LAB}/purchases", json=BUY, headers={"Idempotency-Key": "one"})

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(buy, range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["checkout_url"] for answer in answers}) == 1
    assert purchases(selling) == 1


@pytest.mark.parametrize("status", ["succeeded", "pending"])
def test_a_partner_charges_at_once(
    admin: httpx.Client, selling: Served, till: CashTill, status: Any
) -> None:
    till.status = status
    bought = admin.post(f"{LAB}/purchases", json=BUY).json()
    assert (bought["status"], bought["checkout_url"]) == (status, None)
    expected = "paid" if status == "succeeded" else "awaiting_payment"
    assert bought["purchase"]["state"] == expected


def test_a_declined_purchase_stays_declined(admin: httpx.Client, till: CashTill) -> None:
    till.declines = "No funds."
    for _ in range(2):
        headers = {"Idempotency-Key": "x"}
        answer = admin.post(f"{LAB}/purchases", json=BUY, headers=headers)
        assert code(answer) == (402, "payment_declined")
        assert answer.json()["error"]["message"] == "No funds."
    assert len(till.asked) == 1


BAD: tuple[tuple[str, dict[str, object], tuple[int, str]], ...] = (
    (LAB, {"quantity": 0}, (400, "invalid")),
    (LAB, {"quantity": 51}, (400, "invalid")),
    (LAB, {"quantity": 1.5}, (400, "invalid")),
    (LAB, {"quantity": True}, (400, "invalid")),
    (LAB, {"quantity": "2"}, (400, "invalid")),
    (LAB, {"quantity": 2.0}, (400, "invalid")),
    (LAB, {"kind": "weekly"}, (400, "invalid")),
    (LAB, {"return_path": "//evil.example"}, (400, "invalid")),
    (LAB, {"return_path": "https://evil.example"}, (400, "invalid")),
    (LAB, {"return_path": "/x?y"}, (400, "invalid")),
    (LAB, {"package_id": "nowhere"}, (404, "not_found")),
    (f"{ORG}/groups/nowhere", {}, (404, "not_found")),
    (f"{ORG}/groups/group_unassigned", {}, (409, "reserved_group")),
    (f"{ORG}/websites/nowhere", {}, (404, "not_found")),
    ("/v1/organizations/org_b/groups/lab", {}, (404, "not_found")),
)


def test_bad_input_buys_nothing(admin: httpx.Client, selling: Served, till: CashTill) -> None:
    for path, changed, expected in BAD:
        answer = admin.post(f"{path}/purchases", json=BUY | changed)
        assert code(answer) == expected, (path, changed)
    assert purchases(selling) == len(till.asked) == 0


def test_without_a_provider_nothing_is_enabled_or_begun(selling: Served) -> None:
    with selling.client("admin") as admin:
        assert code(admin.post(f"{LAB}/purchases", json=BUY)) == (409, "payments_not_configured")
        assert code(admin.post(f"{LAB}/portal", json={})) == (409, "payments_not_configured")
        admin.post(f"{ORG}/groups", json={"id": "new", "name": "New"})
        refused = admin.post(f"{ORG}/groups/new/billing", json={})
        assert code(refused) == (409, "payments_not_configured")
        partner = admin.post(f"{ORG}/groups/new/billing", json={"kind": "partner_managed"})
        assert code(partner) == (409, "no_partner")
        assert admin.post(f"{LAB}/billing", json={}).status_code == 200
    assert purchases(selling) == 0


def test_a_partner_manages_its_organizations(selling: Served, till: CashTill) -> None:
    with selling.control.change("org_b", ADMIN) as change:
        for group_id in ("one", "two"):
            create_group(change, group_id, group_id)
    base = "/v1/organizations/org_b/groups"
    with selling.client("admin", "org_b") as client:
        managed = client.post(f"{base}/one/billing", json={}).json()
        assert (managed["provider"], managed["partner_managed"]) == ("partner:acme", True)
        standard = client.post(f"{base}/two/billing", json={"kind": "standard"}).json()
        assert (standard["provider"], standard["partner_managed"]) == ("stripe", False)
        assert client.get(f"{base}/one/billing").json()["partner_managed"] is True


def test_subscriptions_end_with_their_period_and_go_on(
    admin: httpx.Client, selling: Served, till: CashTill
) -> None:
    monthly = BUY | {"kind": "monthly"}
    purchase_id = admin.post(f"{LAB}/purchases", json=monthly).json()["purchase"]["id"]
    path = f"{LAB}/subscriptions/{purchase_id}"
    assert code(admin.post(f"{path}/cancel")) == (404, "not_found")
    subscribe(selling.control, purchase_id)
    for _ in range(2):
        cancelled = admin.post(f"{path}/cancel").json()
        assert (cancelled["id"], cancelled["cancel_at_period_end"]) == (purchase_id, True)
    assert admin.post(f"{path}/resume").json()["cancel_at_period_end"] is False
    assert [what for what, _ in till.asked] == ["begin", "cancel", "resume"]
    log = actions(selling.control)
    assert [log.count(f"subscription.{what}") for what in ("cancel", "resume")] == [1, 1]
    foreign = admin.post(f"{WEB}/subscriptions/{purchase_id}/cancel")
    assert code(foreign) == (404, "not_found")


def test_the_portal_is_that_of_the_profile(admin: httpx.Client, till: CashTill) -> None:
    profile_id = admin.get(f"{LAB}/billing").json()["profile"]["id"]
    answer = admin.post(f"{LAB}/portal", json={"return_path": "/back"})
    assert answer.status_code == 201
    assert answer.json()["url"].endswith("/back")
    assert till.asked == [("portal", profile_id)]


def test_the_history_has_paid_invoices_by_month_of_the_organization(
    admin: httpx.Client, selling: Served
) -> None:
    with selling.control.change("org_a", ADMIN) as change:
        settings = settings_of(change.organization)
        fields = {name: getattr(settings, name) for name in settings.__slots__}
        change_settings(change, None, type(settings)(**fields | {"time_zone": "Asia/Tokyo"}))
    purchase_id = admin.post(f"{LAB}/purchases", json=BUY).json()["purchase"]["id"]
    # In Tokyo November begins at 15:00 UTC of 31 October.
    november = datetime(2026, 10, 31, 15, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    for number, paid_at in (
        ("A-1", november - tick),
        ("A-2", november),
        ("A-3", november),
        ("A-4", datetime(2026, 11, 30, 15, tzinfo=UTC) - tick),
        ("A-5", datetime(2026, 11, 30, 15, tzinfo=UTC)),
    ):
        invoice(selling.control, purchase_id, number, paid_at)
    invoice(selling.control, purchase_id, "A-6", None, status="open")
    invoice(selling.control, purchase_id, "A-7", november, status="void")
    history = admin.get(f"{LAB}/invoices").json()
    assert [row["number"] for row in history["items"]] == ["A-5", "A-4", "A-3", "A-2", "A-1"]
    assert history["months"] == ["2026-12", "2026-11", "2026-10"]
    assert history["time_zone"] == "Asia/Tokyo"
    first = history["items"][0]
    assert (first["amount_text"], first["credits_micro"]) == ("20.00 USD", 2_000_000_000)
    assert first["hosted_invoice_url"] == "https://invoice.example/A-5"
    assert first["invoice_pdf"] == "https://invoice.example/A-5.pdf"
    of_month = admin.get(f"{LAB}/invoices", params={"month": "2026-11"}).json()
    assert [row["number"] for row in of_month["items"]] == ["A-4", "A-3", "A-2"]
    assert of_month["months"] == history["months"]
    assert admin.get(f"{WEB}/invoices").json()["items"] == []
    for month in ("2026-13", "2026", "2026-1", "1999-01"):
        assert code(admin.get(f"{LAB}/invoices", params={"month": month})) == (400, "invalid")


def test_lists_come_page_by_page_newest_first(admin: httpx.Client, selling: Served) -> None:
    ids = [admin.post(f"{LAB}/purchases", json=BUY).json()["purchase"]["id"] for _ in range(5)]
    for number, purchase_id in enumerate(ids):
        invoice(selling.control, purchase_id, f"N-{number}", selling.control.clock())
    for path in (f"{LAB}/purchases", f"{LAB}/invoices"):
        whole = admin.get(path, params={"limit": 1_000}).json()
        assert (len(whole["items"]), whole["next_cursor"]) == (5, None)
        rows, cursor = [], ""
        while cursor is not None:
            page = admin.get(path, params={"limit": 2, "cursor": cursor}).json()
            rows += page["items"]
            cursor = page["next_cursor"]
        assert rows == whole["items"]
        for wrong in ("x", "eyJhZnRlciI6MX0", "eyJhZnRlciI6WyIyMDI2IiwieCJdfQ"):
            answer = admin.get(path, params={"cursor": wrong})
            assert (answer.status_code, answer.json()["error"]["where"]) == (400, "cursor")
    newest = admin.get(f"{LAB}/purchases").json()["items"]
    assert [row["id"] for row in newest] == ids[::-1]


def test_packages_over_http(selling: Served) -> None:
    new = {
        "id": "yen",
        "name": "Ten thousand",
        "credits_micro": 10_000_000_000,
        "price_minor": 1_500,
        "currency": "JPY",
    }
    with selling.client("operator") as operator:
        made = operator.post("/v1/packages", json=new)
        assert made.status_code == 201
        assert made.json()["price_text"] == "1500 JPY"
        path = "/v1/packages/yen"
        changed = operator.patch(path, json={"currency": "EUR", "sold_monthly": True}).json()
        assert (changed["price_text"], changed["sold_monthly"]) == ("15.00 EUR", True)
        retired = operator.patch(path, json={"name": "Old", "retired": True}).json()
        assert (retired["name"], retired["retired"]) == ("Old", True)
        for wrong in ({}, {"name": None}, {"credits_micro": 0}, {"unknown": 1}):
            assert operator.patch(path, json=wrong).status_code == 400, wrong
        assert operator.patch("/v1/packages/no", json={"retired": True}).status_code == 404
        assert {row["id"] for row in operator.get("/v1/packages").json()["items"]} == {"pkg", "yen"}
        entries = operator.get("/v1/audit").json()["items"]
        log = [row["eventType"] for row in entries if row["subjectId"] == "yen"]
        assert log == ["package.retire", "package.change", "package.change", "package.create"]
    with selling.client("admin") as admin:
        offered = admin.get(f"{ORG}/packages").json()
        assert [row["id"] for row in offered["items"]] == ["pkg"]
        assert offered["quantity_max"] == 50


def test_a_cancellation_that_is_repeated_with_its_key_is_asked_for_once(
    admin: httpx.Client, selling: Served, till: CashTill
) -> None:
    bought = admin.post(f"{LAB}/purchases", json=BUY | {"kind": "monthly"}).json()["purchase"]["id"]
    subscribe(selling.control, bought)
    key = {"Idempotency-Key": "cancel-1"}
    answers = [
        admin.post(f"{LAB}/subscriptions/{bought}/cancel", headers=key).json() for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert answers[0]["cancel_at_period_end"]
    assert [what for what, _ in till.asked].count("cancel") == 1
    other = admin.post(f"{LAB}/subscriptions/{bought}/resume", headers=key)
    assert code(other) == (422, "idempotency_key_reused")
