"""What our client makes of a partner's answers, and of none."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.payments.partners.answers import (
    REFUSALS,
    PartnerRefused,
    PartnerUnclear,
    check_page,
    clean_message,
    read,
)
from api.payments.partners.file import parse_partners
from api.payments.partners.outward import Answer
from deploy.embedded.partner.app import Keys
from deploy.embedded.partner.process import new_secret
from schemas import partners as contract
from tests.partners.conftest import Reference, charge_request, partner_toml

SHORT_S = 0.5


@pytest.mark.parametrize(
    ("fault", "patience_s"),
    [
        ("silent_after", SHORT_S),
        ("silent_before", SHORT_S),
        ("error_after", 5.0),
        ("garbage_after", 5.0),
    ],
)
async def test_what_is_not_known_is_asked_again_and_charged_once(
    reference: Reference, fault: str, patience_s: float
) -> None:
    reference.control("next", fault=fault)
    client = reference.client(timeout_s=patience_s)
    answer = await client.charge(charge_request())
    assert answer.status == "succeeded"
    (charge,) = reference.state()["charges"]
    assert charge["charge_id"] == answer.charge_id
    await client.close()


async def test_pauses_grow_and_have_an_end(reference: Reference) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    reference.control("away", away=True)
    client = reference.client(sleep=note)
    with pytest.raises(PartnerUnclear):
        await client.charge(charge_request(), attempts=8)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    await client.close()


@pytest.mark.parametrize(
    ("status", "code"), [(status, code) for status, codes in REFUSALS.items() for code in codes]
)
async def test_a_refusal_of_the_contract_is_final(
    reference: Reference, status: int, code: str
) -> None:
    reference.control("next", fault="refuse", status=status, code=code, message="No.")
    client = reference.client()
    with pytest.raises(PartnerRefused) as refused:
        await client.charge(charge_request())
    assert (refused.value.status, refused.value.code) == (status, code)
    assert reference.state()["charges"] == []
    await client.close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "no_route"),
        (400, "bad_signature"),
        (402, "invalid_request"),
        (409, "in_progress"),
        (422, "idempotency_key_reused"),
        (429, "rate_limited"),
        (500, "internal_error"),
        (307, "invalid_request"),
    ],
)
async def test_any_other_answer_leaves_it_open(
    reference: Reference, status: int, code: str
) -> None:
    reference.control("next", fault="refuse", status=status, code=code, times=3)
    client = reference.client()
    with pytest.raises(PartnerUnclear):
        await client.charge(charge_request())
    await client.close()


async def test_a_refusal_after_an_attempt_without_an_answer_leaves_it_open(
    reference: Reference,
) -> None:
    reference.control("next", fault="silent_after")
    reference.control("next", fault="refuse", status=401, code="bad_signature")
    client = reference.client(timeout_s=SHORT_S)
    with pytest.raises(PartnerUnclear, match="after an unclear attempt"):
        await client.charge(charge_request())
    assert len(reference.state()["charges"]) == 1
    await client.close()


async def test_a_declined_charge_is_an_answer_with_the_partners_words(reference: Reference) -> None:
    reference.control("next", outcome="declined", message="The limit is used up.")
    client = reference.client()
    answer = await client.charge(charge_request())
    assert (answer.status, answer.message) == ("declined", "The limit is used up.")
    await client.close()


async def test_a_partner_that_is_not_there_leaves_it_open() -> None:
    keys = Keys(new_secret(), new_secret())
    partner = parse_partners(partner_toml("http://127.0.0.1:9/v1", keys)).by_name["reference"]
    from api.payments.partners.client import PartnerClient

    async def no_pause(_seconds: float) -> None:
        await asyncio.sleep(0)

    client = PartnerClient(partner, sleep=no_pause)
    with pytest.raises(PartnerUnclear, match="ConnectError"):
        await client.charge(charge_request())
    await client.close()


async def test_a_purchase_is_looked_at_whole(reference: Reference) -> None:
    client = reference.client()
    assert await client.purchase("purchase_1") is None
    await client.charge(charge_request(kind="monthly"))
    seen = await client.purchase("purchase_1")
    assert seen is not None
    assert seen.subscription is not None
    assert seen.charges[0].subscription_id == seen.subscription.subscription_id
    await client.close()


async def test_ids_with_anything_in_them_stay_one_step_of_the_path(reference: Reference) -> None:
    client = reference.client()
    odd = "purchase:a@b+c"
    await client.charge(charge_request(odd))
    seen = await client.purchase(odd)
    assert seen is not None
    await client.close()


async def test_everything_that_changed_is_read_over_all_pages(reference: Reference) -> None:
    client = reference.client()
    for number in range(contract.CHARGES_MAX + 7):
        await client.charge(charge_request(f"purchase_{number}"))
    since = datetime.now(UTC) - timedelta(hours=1)
    listed = [charge.purchase_id async for charge in client.charges_since(since)]
    assert sorted(listed) == sorted(f"purchase_{n}" for n in range(contract.CHARGES_MAX + 7))
    await client.close()


async def test_pages_without_an_end_are_given_up(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left would otherwise be forgotten when the cursor moves on."""
    client = reference.client()
    for number in range(3):
        await client.charge(charge_request(f"purchase_{number}"))
    monkeypatch.setattr(contract, "CHARGES_MAX", 1)
    monkeypatch.setattr("api.payments.partners.client.PAGES_MAX", 2)
    with pytest.raises(PartnerUnclear, match="more than 2 pages"):
        [charge async for charge in client.charges_since(datetime(2020, 1, 1, tzinfo=UTC))]
    await client.close()


async def test_a_subscription_is_canceled_and_resumed(reference: Reference) -> None:
    client = reference.client()
    await client.charge(charge_request(kind="monthly"))
    seen = await client.purchase("purchase_1")
    assert seen is not None
    assert seen.subscription is not None
    fields: dict[str, Any] = {
        "subscription_id": seen.subscription.subscription_id,
        "purchase_id": "purchase_1",
        "organization_id": "org_a",
    }
    cancel = contract.SubscriptionChange(action="cancel", **fields)
    assert (await client.change_subscription(cancel, "cancel:1")).cancel_at_period_end
    resume = contract.SubscriptionChange(action="resume", **fields)
    assert not (await client.change_subscription(resume, "resume:1")).cancel_at_period_end
    await client.close()


async def test_the_portal_opens_for_a_while(reference: Reference) -> None:
    client = reference.client()
    portal = await client.portal("org_a", "group", "group_editors")
    assert portal.url.startswith(reference.url)
    late = reference.client(now=lambda: datetime.now(UTC) + timedelta(minutes=4))
    assert await late.portal("org_a", "group", "group_editors")
    await client.close()
    await late.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://billing.acme.example/portal",
        "http://127.0.0.1/portal",
        "javascript:alert(1)",
        "//acme.example/portal",
        "https://",
        "https://user@acme.example/portal",
        "https://acme.example\\@evil.example/",
        "https://acme.example/a b",
        "https://acme.example/\nx",
        "https://[::1/",
        "",
    ],
)
def test_an_address_that_no_browser_may_be_sent_to_is_none(url: str) -> None:
    keys = Keys(new_secret(), new_secret())
    text = partner_toml("https://billing.acme.example/v1", keys)
    partner = parse_partners(text).by_name["reference"]
    with pytest.raises(PartnerUnclear):
        check_page(url, partner)
    check_page("https://portal.acme.example/s/abc?x=1", partner)


def answer(status: int, body: bytes) -> Answer:
    import httpx

    return Answer(status, httpx.Headers(), body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"charge_id":"","status":"succeeded"}',
        b'{"charge_id":"a/b","status":"succeeded"}',
        b'{"charge_id":"pch_1","status":"maybe"}',
        b'{"charge_id":"pch_1"}',
        b'{"charge_id":1,"status":"succeeded"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_an_answer_that_does_not_fit_is_not_known(body: bytes) -> None:
    with pytest.raises(PartnerUnclear):
        read(answer(201, body), contract.ChargeAnswer)
    with pytest.raises(PartnerUnclear):
        read(answer(400, body), contract.ChargeAnswer)


def test_a_partners_words_are_one_line_of_printable_text() -> None:
    assert clean_message("No\r\nmoney\x00 \x1b[31m‮left ") == "No money [31m left"
