"""The stand-in as a process: what was answered survives `kill -9`; it rests when nothing is due."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import stripe

from deploy.embedded.child import EngineError
from deploy.embedded.stripe import EmbeddedStripe
from deploy.embedded.stripe.driving import StripeControl
from tests.stripe import shop
from tests.stripe.endpoint import endpoint


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedStripe]:
    engine = EmbeddedStripe(tmp_path)
    engine.start()
    yield engine
    engine.kill()


def client_of(engine: EmbeddedStripe) -> tuple[stripe.StripeClient, stripe.RequestsClient]:
    http = stripe.RequestsClient()
    client = stripe.StripeClient(engine.key, base_addresses={"api": engine.url}, http_client=http)
    return client, http


def test_a_killed_one_goes_on_where_it_was(embedded: EmbeddedStripe) -> None:
    client, http = client_of(embedded)
    with closing(http), closing(StripeControl(embedded.url, embedded.token)) as control:
        options: stripe.RequestOptions = {"idempotency_key": "customer:1"}
        buyer = client.v1.customers.create({"name": "Acme"}, options=options).id
        opened = shop.monthly(client, buyer)
        control.pay(opened.id)
        control.freeze()
        control.advance(10 * shop.DAY_S)
        before, events = control.now_s(), shop.event_types(client)
        embedded.kill()
        embedded.start()
        assert control.now_s() == before
        assert shop.event_types(client) == events
        assert client.v1.customers.create({"name": "Acme"}, options=options).id == buyer
        control.advance(30 * shop.DAY_S)
        subscription = str(shop.session(client, opened.id).subscription)
        assert len(client.v1.invoices.list({"subscription": subscription}).data) == 2


def test_a_shop_whose_clock_was_not_moved_still_sells(embedded: EmbeddedStripe) -> None:
    client, http = client_of(embedded)
    with closing(http), closing(StripeControl(embedded.url, embedded.token)) as control:
        control.advance(31 * shop.DAY_S)
        opened = shop.once(client, expires_at=int(time.time()) + 2 * shop.HOUR_S)
        control.advance(shop.HOUR_S)
        assert shop.session(client, opened.id).status == "open"
        control.advance(2 * shop.HOUR_S)
        assert shop.session(client, opened.id).status == "expired"


def test_webhooks_go_out_by_themselves_also_after_a_kill(tmp_path: Path) -> None:
    with endpoint("") as taker:
        engine = EmbeddedStripe(tmp_path, webhook_url=taker.url)
        taker.secret = engine.webhook_secret
        taker.status = 500
        engine.start()
        client, http = client_of(engine)
        with closing(http), closing(StripeControl(engine.url, engine.token)) as control:
            shop.customer(client)
            _until(lambda: taker.types == ["customer.created"])
            engine.kill()
            taker.status = 200
            engine.start()
            control.advance(10)
            _until(lambda: len(taker.events) == 2)
            _until(lambda: control.state()["deliveries"][0]["state"] == "delivered")
        engine.stop()
    assert engine.exit_code is not None
    assert taker.refused == []


def test_it_rests_when_nothing_is_due(embedded: EmbeddedStripe) -> None:
    client, http = client_of(embedded)
    with closing(http):
        shop.once(client)
    process = psutil.Process(embedded.pid)
    switches = sum(process.num_ctx_switches())
    time.sleep(2)
    assert sum(process.num_ctx_switches()) - switches < 10


def test_its_secrets_stay_with_its_data_and_are_nobody_elses(tmp_path: Path) -> None:
    first, second = EmbeddedStripe(tmp_path / "a"), EmbeddedStripe(tmp_path / "b")
    assert first.key == EmbeddedStripe(tmp_path / "a").key
    assert first.key.startswith("sk_test_")
    assert len({first.key, second.key, first.webhook_secret, first.token}) == 4
    (held,) = (tmp_path / "a" / "stripe").glob("*.json")
    assert held.stat().st_mode & 0o077 == 0
    former = first.key
    held.write_text("{")
    assert EmbeddedStripe(tmp_path / "a").key != former


def test_a_taken_port_is_said(tmp_path: Path, embedded: EmbeddedStripe) -> None:
    second = EmbeddedStripe(tmp_path / "second", port=embedded.port)
    with pytest.raises(EngineError, match="address already in use"):
        second.start()


def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.02)
