"""The contract of `deploy/partner.md`, asked of a running partner: yours, or the reference.

    PARTNER_UNDER_TEST=partners.toml ./metering test tests/partners/test_contract.py

asks the first partner of such a file (as METERING_PARTNERS_FILE describes it) about its first
organization. It charges that organization small amounts, so point it at a test system in which the
next charges succeed. Nothing here uses more than the contract.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import jsonschema
import pytest

from api.payments.partners.client import PartnerClient
from api.payments.partners.file import Partner, load_partners
from api.payments.partners.signing import signed_headers
from deploy.embedded.partner.process import new_secret
from schemas import partners as contract
from tests.partners.conftest import Reference, charge_request
from tests.schemas.generate import SCHEMAS

OVERLAP = timedelta(minutes=5)
"""How far the partner's clock may be apart from ours."""


@pytest.fixture
def partner(request: pytest.FixtureRequest) -> Partner:
    file = os.environ.get("PARTNER_UNDER_TEST")
    if file:
        return next(iter(load_partners(Path(file)).by_name.values()))
    reference: Reference = request.getfixturevalue("reference")
    return reference.partner


@pytest.fixture
def asked(partner: Partner) -> Iterator[Callable[..., httpx.Response]]:
    """Sends a request, signed as it should be unless a test says otherwise."""
    secrets = [one.get_secret_value() for one in partner.signing_secrets]
    with httpx.Client(timeout=30) as client:

        def ask(method: str, target: str, body: Any = None, **more: Any) -> httpx.Response:
            text = more.get("text", "" if body is None else json.dumps(body))
            signed = text if body is not None or text else f"{method} {target}"
            headers = signed_headers(
                more.get("signed", signed), more.get("secrets", secrets), at=more.get("at")
            )
            headers |= {"metering-contract-version": "1"} | more.get("headers", {})
            if text:
                headers["content-type"] = "application/json"
            return client.request(
                method, partner.base + target, content=text or None, headers=headers
            )

        yield ask


Ask = Callable[..., httpx.Response]


def fits(message: str, document: Any) -> Any:
    schema = json.loads((SCHEMAS / "partners" / f"{message}.schema.json").read_text())
    checker = jsonschema.Draft202012Validator
    checker(schema, format_checker=checker.FORMAT_CHECKER).validate(document)
    return document


def new_charge(partner: Partner, **changed: Any) -> dict[str, Any]:
    organization_id = min(partner.organizations)
    request = charge_request(
        f"purchase_{uuid4().hex[:12]}", organization_id=organization_id, **changed
    )
    body = json.loads(
        json.dumps({name: getattr(request, name) for name in request.__struct_fields__})
    )
    return dict(fits("charge-request", body))


def key_of(body: dict[str, Any]) -> dict[str, str]:
    return {"idempotency-key": f"charge:{body['purchase_id']}"}


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    assert fits("error", answer.json())["error"]["code"] == code


def test_a_charge_is_made_once_however_often_it_is_asked_for(partner: Partner, asked: Ask) -> None:
    body = new_charge(partner)
    first = asked("POST", "/charges", body, headers=key_of(body))
    assert first.status_code == 201
    charge = fits("charge-answer", first.json())
    again = asked("POST", "/charges", body, headers=key_of(body))
    assert again.status_code in (200, 201)
    assert again.json()["charge_id"] == charge["charge_id"]
    # The key may have been forgotten by then; the purchase is not.
    later = asked("POST", "/charges", body, headers={"idempotency-key": f"other:{uuid4()}"})
    assert later.json()["charge_id"] == charge["charge_id"]
    known = fits("purchase", asked("GET", f"/purchases/{body['purchase_id']}").json())
    assert [one["charge_id"] for one in known["charges"]] == [charge["charge_id"]]


def test_requests_at_the_same_time_make_one_charge(partner: Partner) -> None:
    async def ask() -> list[contract.ChargeAnswer]:
        client = PartnerClient(partner)
        request = charge_request(
            f"purchase_{uuid4().hex[:12]}", organization_id=min(partner.organizations)
        )
        try:
            return await asyncio.gather(*(client.charge(request) for _ in range(8)))
        finally:
            await client.close()

    answers = asyncio.run(ask())
    assert len({answer.charge_id for answer in answers}) == 1


def test_the_same_key_for_something_else_is_refused(partner: Partner, asked: Ask) -> None:
    body = new_charge(partner)
    asked("POST", "/charges", body, headers=key_of(body))
    other = {**body, "amount_minor": body["amount_minor"] + 1}
    refused(asked("POST", "/charges", other, headers=key_of(body)), 422, "idempotency_key_reused")


def test_what_was_asked_is_what_is_told(partner: Partner, asked: Ask) -> None:
    body = new_charge(partner, packages=50, amount_minor=12_345, currency="EUR")
    asked("POST", "/charges", body, headers=key_of(body))
    (charge,) = asked("GET", f"/purchases/{body['purchase_id']}").json()["charges"]
    for name in ("purchase_id", "organization_id", "packages", "amount_minor", "currency"):
        assert charge[name] == body[name]
    assert charge.get("refunded_minor", 0) == 0


def test_a_monthly_purchase_begins_a_subscription(partner: Partner, asked: Ask) -> None:
    body = new_charge(partner, kind="monthly")
    asked("POST", "/charges", body, headers=key_of(body))
    known = fits("purchase", asked("GET", f"/purchases/{body['purchase_id']}").json())
    (charge,), subscription = known["charges"], known["subscription"]
    assert subscription["status"] == "active"
    assert charge["subscription_id"] == subscription["subscription_id"]
    assert charge["period_start"] == subscription["current_period_start"]
    assert charge["period_end"] == subscription["current_period_end"]
    assert datetime.fromisoformat(charge["period_start"]) < datetime.fromisoformat(
        charge["period_end"]
    )


def test_a_subscription_is_canceled_resumed_and_ended(partner: Partner, asked: Ask) -> None:
    body = new_charge(partner, kind="monthly")
    asked("POST", "/charges", body, headers=key_of(body))
    known = asked("GET", f"/purchases/{body['purchase_id']}").json()["subscription"]
    where = f"/subscriptions/{known['subscription_id']}"

    def change(action: str, number: int, **more: Any) -> httpx.Response:
        about = {name: body[name] for name in ("purchase_id", "organization_id")}
        about |= {"action": action, "subscription_id": known["subscription_id"], **more}
        fits("subscription-change", about)
        return asked(
            "POST", f"{where}/{action}", about, headers={"idempotency-key": f"{uuid4()}:{number}"}
        )

    for number in range(2):
        assert fits("subscription", change("cancel", number).json())["cancel_at_period_end"]
    assert not change("resume", 3).json()["cancel_at_period_end"]
    for number in (4, 5):
        ended = fits("subscription", change("cancel", number, at_period_end=False).json())
        assert ended["status"] == "canceled"
    refused(change("resume", 6), 422, "unsupported")


def test_what_changed_is_listed_page_by_page_in_order(partner: Partner, asked: Ask) -> None:
    since = datetime.now(UTC) - OVERLAP
    made = []
    for _ in range(5):
        body = new_charge(partner)
        answer = asked("POST", "/charges", body, headers=key_of(body))
        made.append(answer.json()["charge_id"])
    listed: list[dict[str, Any]] = []
    cursor = ""
    while True:
        query = {"since": since.isoformat(), "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = fits("charge-list", asked("GET", f"/charges?{urlencode(query)}").json())
        assert len(page["charges"]) <= 2
        listed += page["charges"]
        cursor = page.get("next_cursor", "")
        if not cursor:
            break
    ids = [one["charge_id"] for one in listed]
    assert len(ids) == len(set(ids))
    assert set(made) <= set(ids)
    order = [(datetime.fromisoformat(one["updated_at"]), one["charge_id"]) for one in listed]
    assert order == sorted(order)


def test_a_canceled_subscription_shows_in_what_changed(partner: Partner, asked: Ask) -> None:
    body = new_charge(partner, kind="monthly")
    asked("POST", "/charges", body, headers=key_of(body))
    before = asked("GET", f"/purchases/{body['purchase_id']}").json()
    subscription_id = before["subscription"]["subscription_id"]
    about = {name: body[name] for name in ("purchase_id", "organization_id")}
    about |= {"action": "cancel", "subscription_id": subscription_id, "at_period_end": False}
    asked(
        "POST",
        f"/subscriptions/{subscription_id}/cancel",
        about,
        headers={"idempotency-key": str(uuid4())},
    )
    after = asked("GET", f"/purchases/{body['purchase_id']}").json()
    assert after["charges"][0]["updated_at"] > before["charges"][0]["updated_at"]


def test_nothing_changed_since_the_future(asked: Ask) -> None:
    since = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    page = asked("GET", f"/charges?{urlencode({'since': since})}").json()
    assert (page["charges"], page.get("next_cursor", "")) == ([], "")


def test_the_portal_has_a_short_lived_address(partner: Partner, asked: Ask) -> None:
    query = {"organization": min(partner.organizations), "pool_kind": "group", "pool": "group_1"}
    portal = fits("portal", asked("GET", f"/portal?{urlencode(query)}").json())
    left = datetime.fromisoformat(portal["expires_at"]) - datetime.now(UTC)
    assert timedelta(0) < left <= timedelta(hours=24)


def test_an_unknown_purchase_is_not_found(asked: Ask) -> None:
    refused(asked("GET", f"/purchases/purchase_{uuid4().hex}"), 404, "not_found")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("packages", 0),
        ("packages", 51),
        ("currency", "usd"),
        ("kind", "weekly"),
        ("amount_minor", -1),
    ],
)
def test_a_request_that_cannot_be_is_refused_and_charges_nothing(
    partner: Partner, asked: Ask, field: str, value: Any
) -> None:
    body = {**new_charge(partner), field: value}
    refused(asked("POST", "/charges", body, headers=key_of(body)), 400, "invalid_request")
    refused(asked("GET", f"/purchases/{body['purchase_id']}"), 404, "not_found")


def test_a_charge_without_a_key_is_refused(partner: Partner, asked: Ask) -> None:
    refused(asked("POST", "/charges", new_charge(partner)), 400, "invalid_request")


def test_unknown_fields_are_ignored(partner: Partner, asked: Ask) -> None:
    body = {**new_charge(partner), "added_in_a_later_release": True}
    assert asked("POST", "/charges", body, headers=key_of(body)).status_code == 201


def _bad_signatures() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "another secret": lambda: {"secrets": [new_secret()]},
        "other bytes": lambda: {"signed": "{}"},
        "too old": lambda: {"at": datetime.now(UTC) - timedelta(minutes=6)},
        "too new": lambda: {"at": datetime.now(UTC) + timedelta(minutes=6)},
    }


@pytest.mark.parametrize("wrong", list(_bad_signatures()))
def test_a_wrong_signature_is_refused_before_anything(
    partner: Partner, asked: Ask, wrong: str
) -> None:
    more = _bad_signatures()[wrong]()
    body = new_charge(partner)
    answer = asked("POST", "/charges", body, headers=key_of(body), **more)
    refused(answer, 401, "bad_signature")
    refused(asked("GET", f"/purchases/{body['purchase_id']}"), 404, "not_found")
    query = urlencode({"since": datetime.now(UTC).isoformat()})
    refused(asked("GET", f"/charges?{query}", **more), 401, "bad_signature")


def test_a_signature_for_another_target_is_refused(asked: Ask) -> None:
    """What was signed for one look cannot be used for another."""
    answer = asked("GET", "/purchases/purchase_b", signed="GET /purchases/purchase_a")
    refused(answer, 401, "bad_signature")


def test_one_of_several_signatures_is_enough(partner: Partner, asked: Ask) -> None:
    secrets = [new_secret(), *(one.get_secret_value() for one in partner.signing_secrets)]
    refused(asked("GET", "/purchases/none", secrets=secrets), 404, "not_found")


def test_a_version_that_is_not_known_is_refused(asked: Ask) -> None:
    answer = asked("GET", "/purchases/none", headers={"metering-contract-version": "9"})
    refused(answer, 422, "unsupported")
