"""The state machine over money: a small round in CI, a long one by `METERING_MONEY_EXAMPLES`."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.money.machine import Money

EXAMPLES = int(os.environ.get("METERING_MONEY_EXAMPLES", "6"))
SHRINKS = os.environ.get("METERING_MONEY_SHRINK", "")
"""Takes minutes: for whoever looks for the cause."""


@pytest.mark.timeout(max(600, 60 * EXAMPLES))
def test_books_are_what_stripe_says_whatever_happens() -> None:
    run_state_machine_as_test(
        Money,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            phases=tuple(Phase) if SHRINKS else (Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(dict(Money.seen))
    for kind in ("purchases", "paid invoices", "refund", "dispute", "crashes"):
        assert Money.seen[kind], f"nothing tried {kind}"
