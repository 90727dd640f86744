"""What may come to `/webhooks/stripe`: only what Stripe signed, just now, for this account."""

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import func, select
from stripe import WebhookSignature

from api.options import PaymentOptions
from api.storage.purchases import ProviderEvent
from api.web.context import WEBHOOKS_READ_AT_ONCE
from api.web.readers import NewestReaders
from tests.payments.storefront import Storefront, storefront

OTHER_SECRET = "whsec_" + "of_another_endpoint"
OLD_SECRET = "whsec_" + "that_is_rotated_out"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storefront]:
    secrets = SecretStr("whsec_of_the_tests," + OLD_SECRET)
    with storefront(tmp_path_factory.mktemp("front"), webhook_secret=secrets) as opened:
        yield opened


def event(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"evt_{number}",
        "object": "event",
        "type": "product.created",
        "created": 1_790_000_000,
        "livemode": False,
        "api_version": "2026-10-28.endive",
        "data": {"object": {"id": "prod_1", "object": "product"}},
        **changes,
    }


def send(
    front: Storefront, body: str | bytes, header: str | None = None, *, offset_s: int = 0
) -> httpx.Response:
    sent = body if isinstance(body, bytes) else body.encode()
    if header is None:
        header = signed(front, sent.decode(), offset_s=offset_s)
    headers = {"Stripe-Signature": header, "Content-Type": "application/json"}
    return httpx.post(f"{front.served.url}/webhooks/stripe", content=sent, headers=headers)


def signed(front: Storefront, body: str, secret: str | None = None, *, offset_s: int = 0) -> str:
    at_s = int(front.clock().timestamp()) + offset_s
    secret = secret or front.stripe.webhook_secret
    return WebhookSignature.generate_signature_header(body, secret, at_s)


def stored(front: Storefront) -> int:
    with front.store.read() as session:
        return session.scalar(select(func.count()).select_from(ProviderEvent)) or 0


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_signed_event_is_kept_once(front: Storefront) -> None:
    before, body = stored(front), json.dumps(event(1))
    for _ in range(3):
        answer = send(front, body)
        assert (answer.status_code, answer.json()) == (200, {"received": True})
    assert stored(front) == before + 1


def test_many_at_once_are_kept_once(front: Storefront) -> None:
    before, body = stored(front), json.dumps(event(2))
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(send(front, body).status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8
    assert stored(front) == before + 1


def test_a_burst_is_kept_whole(front: Storefront) -> None:
    """More at once than may wait for a turn to write."""
    statuses: list[int] = []

    def one(number: int) -> None:
        statuses.append(send(front, json.dumps(event(100 + number))).status_code)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 30


async def test_whoever_sends_slowly_gives_way_to_who_comes_later() -> None:
    readers = NewestReaders(2)
    given_up: list[int] = []
    finished: list[int] = []

    async def read(number: int, end: asyncio.Event) -> None:
        try:
            async with readers.one():
                await end.wait()
            finished.append(number)
        except TimeoutError:
            given_up.append(number)

    never, now = asyncio.Event(), asyncio.Event()
    now.set()
    slow = [asyncio.create_task(read(number, never)) for number in range(5)]
    await asyncio.sleep(0)
    await read(9, now)
    await asyncio.wait(slow[:4])
    assert (given_up, finished) == ([0, 1, 2, 3], [9])
    never.set()
    await slow[4]
    assert finished == [9, 4]


def test_slow_senders_hold_up_nobody(front: Storefront) -> None:
    """More of them than are read at once; each has sent its head and a byte."""
    host, port = front.served.url.removeprefix("http://").split(":")
    head = f"POST /webhooks/stripe HTTP/1.1\r\nHost: {host}\r\nContent-Length: 900\r\n\r\n{{"
    with ExitStack() as stack:
        for _ in range(WEBHOOKS_READ_AT_ONCE + 20):
            slow = stack.enter_context(socket.create_connection((host, int(port))))
            slow.sendall(head.encode())
        assert send(front, json.dumps(event(15))).status_code == 200


def test_a_secret_that_is_being_rotated_out_still_signs(front: Storefront) -> None:
    body = json.dumps(event(3))
    assert send(front, body, signed(front, body, OLD_SECRET)).status_code == 200


@pytest.mark.parametrize("offset_s", [-301, 301, 10**9])
def test_signatures_of_another_time_are_refused(front: Storefront, offset_s: int) -> None:
    before = stored(front)
    answer = send(front, json.dumps(event(4)), offset_s=offset_s)
    assert code(answer) == (400, "stale_signature")
    assert stored(front) == before


@pytest.mark.parametrize("offset_s", [-300, 300])
def test_clocks_may_be_a_little_apart(front: Storefront, offset_s: int) -> None:
    assert send(front, json.dumps(event(5)), offset_s=offset_s).status_code == 200


def test_what_another_endpoint_signed_is_refused(front: Storefront) -> None:
    before, body = stored(front), json.dumps(event(6))
    assert code(send(front, body, signed(front, body, OTHER_SECRET))) == (400, "wrong_signature")
    assert stored(front) == before


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=",
        "t=1,v1=",
        "v1=abc",
        "t=abc,v1=abc",
        "t=9" * 500,
        "t=" + "9" * 400 + ",v1=ab",
        "t=-5,v1=ab",
        "t=1,v0=abc",
        ",,,=",
        "t",
        "t=1,v1",
    ],
)
def test_headers_that_are_no_signature_are_refused(front: Storefront, header: str) -> None:
    assert code(send(front, json.dumps(event(7)), header)) == (400, "wrong_signature")


def test_a_header_of_other_characters_is_refused(front: Storefront) -> None:
    body = json.dumps(event(8)).encode()
    headers = [(b"Stripe-Signature", b"t=1,v1=\xe9\xff")]
    answer = httpx.post(f"{front.served.url}/webhooks/stripe", content=body, headers=headers)
    assert code(answer) == (400, "wrong_signature")


def test_a_body_that_was_changed_is_refused(front: Storefront) -> None:
    body = json.dumps(event(9))
    header = signed(front, body)
    assert code(send(front, body.replace("prod_1", "prod_2"), header)) == (400, "wrong_signature")
    assert code(send(front, b"\xff\xfe" + body.encode(), header)) == (400, "wrong_signature")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"account": "acct_connected"}, "other_account"),
        ({"livemode": True}, "other_mode"),
        ({"object": "v2.core.event"}, "no_event"),
        ({"created": -1}, "no_event"),
        ({"created": 10**30}, "no_event"),
        ({"id": "x" * 300}, "no_event"),
        ({"id": 7}, "no_event"),
        ({"id": "evt\0"}, "no_event"),
        ({"type": "x" * 200}, "no_event"),
        ({"data": {"object": []}}, "no_event"),
        ({"data": {"object": {"object": 7, "id": "x"}}}, "no_event"),
        ({"livemode": None}, "no_event"),
    ],
)
def test_signed_events_that_are_not_ours_are_refused(
    front: Storefront, changes: dict[str, Any], why: str
) -> None:
    before = stored(front)
    assert code(send(front, json.dumps(event(10, **changes)))) == (400, why)
    assert stored(front) == before


@pytest.mark.parametrize("body", ["", "[]", "nonsense", "[" * 50_000, '{"id":"\\ud800"}'])
def test_signed_bodies_that_are_no_event_are_refused(front: Storefront, body: str) -> None:
    assert code(send(front, body)) == (400, "no_event")


def test_too_large_a_body_is_refused_unread(front: Storefront) -> None:
    assert code(send(front, json.dumps(event(11, more="x" * 300_000)))) == (413, "too_large")


def test_what_moves_no_money_is_passed_over(front: Storefront) -> None:
    send(front, json.dumps(event(12)))
    front.deliver()
    with front.store.read() as session:
        row = session.get_one(ProviderEvent, ("stripe", "evt_12"))
        assert row.processed_at is not None
        assert row.problem == "ignored: it moves no money"


def test_nothing_secret_is_logged_or_answered(
    front: Storefront, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even while Stripe refuses, fails, and is told of with everything that is logged."""
    caplog.set_level(logging.DEBUG)
    front.stripe.control.faults({"kind": "error", "path": "/v1/", "method": "*", "times": 30})
    failed = front.admin.post(
        "/v1/organizations/org_a/groups/group_a/purchases",
        json={"package_id": "pkg_1000", "kind": "one_time", "quantity": 1},
    )
    assert failed.status_code == 503
    front.stripe.control.faults()
    body = json.dumps(event(13))
    refused = send(front, body, signed(front, body, OTHER_SECRET))
    bought = front.buy()
    front.pay(bought["id"])
    printed = capfd.readouterr()
    said = caplog.text + printed.out + printed.err + failed.text + refused.text + str(bought)
    for secret in (front.stripe.api_key, front.stripe.webhook_secret, OLD_SECRET, OTHER_SECRET):
        assert secret not in said


def test_floods_of_wrong_signatures_are_slowed_down_and_right_ones_still_come_in(
    tmp_path: Path,
) -> None:
    with storefront(tmp_path, api_options={"failed_logins_per_minute": 2}) as front:
        codes = {code(send(front, "{}", "t=1,v1=ab")) for _ in range(9)}
        assert codes == {(400, "wrong_signature"), (429, "rate_limited")}
        assert send(front, json.dumps(event(14))).status_code == 200


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"api_key": "pk_" + "test_public"}, "no secret key"),
        ({"api_key": "sk_" + "test_a b"}, "no secret key"),
        ({"api_key": "sk_" + "test_1234"}, "WEBHOOK_SECRET is missing"),
        ({"webhook_secret": "whsec_12345678"}, "API_KEY is missing"),
        ({"api_key": "sk_" + "test_1234", "webhook_secret": "12345678"}, "no signing secret"),
        (
            {
                "api_key": "sk_" + "live_1234",
                "webhook_secret": "whsec_12345678",
                "api_base": "http://127.0.0.1:1",
            },
            "test key only",
        ),
        ({"api_base": "http://127.0.0.1:1"}, "test key only"),
        ({"api_base": "127.0.0.1:1"}, "is to be http:// or https://"),
    ],
)
def test_options_that_cannot_be_are_refused_without_repeating_them(
    given: dict[str, str], why: str
) -> None:
    with pytest.raises(ValidationError) as error:
        PaymentOptions(**given)  # type: ignore[arg-type]
    assert why in str(error.value)
    for value in (given.get("api_key"), given.get("webhook_secret")):
        assert not value or value not in str(error.value)


def test_an_id_that_is_none_of_stripes_names_nothing(front: Storefront) -> None:
    session = {"object": "checkout.session", "metadata": {"metering_purchase": "buy_nobody"}}
    for number, object_id in enumerate(("../../customers/x", "cs_1?expand[]=a#", "cs_1\n"), 90):
        thing = {"object": {**session, "id": object_id}}
        body = json.dumps(event(number, type="checkout.session.completed", data=thing))
        assert send(front, body).status_code == 200
    front.deliver()
    assert front.unmatched() == []
