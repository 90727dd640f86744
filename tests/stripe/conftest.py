"""Fixtures: a stand-in in this process, and stripe-mock for what is asked of it."""

from collections.abc import Iterator

import pytest
import stripe

from tests.stripe.mock import StripeMock, started
from tests.stripe.running import RunningStripe, running_stripe


@pytest.fixture
def standin() -> Iterator[RunningStripe]:
    with running_stripe() as running:
        yield running


@pytest.fixture
def client(standin: RunningStripe) -> stripe.StripeClient:
    return standin.client()


@pytest.fixture(scope="session")
def stripe_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeMock]:
    mock = started(tmp_path_factory.mktemp("stripe-mock") / "output.log")
    yield mock
    mock.stop()
