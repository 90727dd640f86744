"""Webhooks: signed, retried, and the switches that make them go wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stripe import shop
from tests.stripe.endpoint import Endpoint, endpoint
from tests.stripe.running import WEBHOOK_SECRET, RunningStripe, running_stripe


@pytest.fixture
def taker() -> Iterator[Endpoint]:
    with endpoint(WEBHOOK_SECRET) as held:
        yield held


@pytest.fixture
def sending(taker: Endpoint) -> Iterator[RunningStripe]:
    """Webhooks go out with `flush` only, so that a test sees exactly what was sent."""
    with running_stripe(webhook_url=taker.url, paused=True) as running:
        yield running


def test_every_event_arrives_signed_with_a_snapshot(
    sending: RunningStripe, taker: Endpoint
) -> None:
    client = sending.client()
    opened = shop.once(client)
    sending.control.pay(opened.id)
    sending.control.flush()
    assert taker.types == shop.event_types(client)
    completed = taker.events[-1]
    assert (completed.type, completed.livemode) == ("checkout.session.completed", False)
    assert completed.data.object["id"] == opened.id
    assert completed.api_version == "2026-10-28.endive"


def test_an_update_says_what_was_before(sending: RunningStripe, taker: Endpoint) -> None:
    client = sending.client()
    opened = shop.monthly(client)
    sending.control.pay(opened.id)
    subscription = str(shop.session(client, opened.id).subscription)
    client.v1.subscriptions.update(
        subscription, {"cancel_at_period_end": True, "metadata": {"more": "1"}}
    )
    sending.control.flush()
    updated = taker.events[-1]
    assert updated.type == "customer.subscription.updated"
    assert updated.data.previous_attributes is not None
    before = updated.data.previous_attributes.to_dict()
    assert before["cancel_at_period_end"] is False
    assert before["cancellation_details"] == {"reason": None}
    assert before["metadata"] == {"more": None}
    assert updated.request is not None
    assert updated.request.idempotency_key


def test_what_is_not_taken_is_sent_again_with_pauses(
    sending: RunningStripe, taker: Endpoint
) -> None:
    taker.status = 500
    shop.customer(sending.client())
    assert sending.control.flush() == {"delivered": 0, "failed": 1}
    assert sending.control.flush() == {"delivered": 0, "failed": 0}
    sending.control.advance(5)
    assert sending.control.flush() == {"delivered": 0, "failed": 1}
    taker.status = 200
    sending.control.advance(30)
    assert sending.control.flush() == {"delivered": 1, "failed": 0}
    assert len(taker.events) == 3
    assert len({event.id for event in taker.events}) == 1


def test_it_is_given_up_after_the_last_pause(sending: RunningStripe, taker: Endpoint) -> None:
    taker.status = 500
    shop.customer(sending.client())
    for _ in range(8):
        sending.control.flush()
        sending.control.advance(7_200)
    assert len(taker.events) == 6
    (delivery,) = sending.control.state()["deliveries"]
    assert (delivery["state"], delivery["attempts"], delivery["answer"]) == ("given_up", 6, "500")


def test_drop_duplicate_and_delay(sending: RunningStripe, taker: Endpoint) -> None:
    sending.control.webhook_rules(
        {"action": "drop", "types": ["product.*"]},
        {"action": "duplicate", "types": ["customer.created"], "times": 1},
        {"action": "delay", "types": ["price.created"], "delay_s": 100},
        paused=True,
        signed_at="moved",
    )
    client = sending.client()
    shop.once(client)
    shop.customer(client)
    sending.control.flush()
    assert taker.types == ["customer.created"] * 3
    assert taker.events[0].id == taker.events[1].id
    sending.control.advance(100)
    sending.control.flush()
    assert taker.types[3:] == ["price.created"]


def test_reordered_by_a_seed(sending: RunningStripe, taker: Endpoint) -> None:
    sending.control.webhook_rules(reorder=True, seed=7, paused=True, signed_at="moved")
    client = sending.client()
    sending.control.pay(shop.once(client).id)
    sending.control.flush()
    assert sorted(taker.types) == sorted(shop.event_types(client))
    assert taker.types != shop.event_types(client)


def test_a_probability_drops_some_and_the_seed_says_which(
    sending: RunningStripe, taker: Endpoint
) -> None:
    sending.control.webhook_rules(
        {"action": "drop", "probability": 0.5}, seed=3, paused=True, signed_at="moved"
    )
    client = sending.client()
    for _ in range(20):
        shop.customer(client)
    sending.control.flush()
    assert 0 < len(taker.events) < 20


def test_a_forged_one_does_not_verify(sending: RunningStripe, taker: Endpoint) -> None:
    client = sending.client()
    shop.customer(client)
    sending.control.flush()
    sending.control.send(taker.events[0].id, forged=True)
    sending.control.flush()
    assert len(taker.events) == 1
    assert len(taker.refused) == 1
    sending.control.send(taker.events[0].id)
    sending.control.flush()
    assert len(taker.events) == 2


def test_undelivered_ones_outlive_a_restart(taker: Endpoint, tmp_path: Path) -> None:
    with running_stripe(webhook_url=taker.url, paused=True, directory=tmp_path) as running:
        shop.customer(running.client())
    assert taker.events == []
    with running_stripe(webhook_url=taker.url, paused=True, directory=tmp_path) as running:
        running.control.flush()
    assert taker.types == ["customer.created"]
