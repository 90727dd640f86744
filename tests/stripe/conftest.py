"""Fixtures: a stand-in in this process, and stripe-mock."""

from collections.abc import Iterator

import pytest
import stripe

from tests.stripe.running import RunningStripe, running_stripe


@pytest.fixture
def standin() -> Iterator[RunningStripe]:
    with running_stripe() as running:
        yield running


@pytest.fixture
def client(standin: RunningStripe) -> stripe.StripeClient:
    return standin.client()
