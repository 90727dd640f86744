"""The demo's figures can be checked in one's head."""

from datetime import UTC, datetime
from fractions import Fraction

from cli.up.demo import COMPANIES, PRICES, UNPRICED_METER, past_usage
from schemas.records import MICRO


def test_every_event_costs_whole_credits() -> None:
    for company in COMPANIES:
        for event in past_usage(company, datetime(2026, 11, 21, tzinfo=UTC)):
            if event["type"] != UNPRICED_METER:
                units = Fraction(event["data"]["quantity"])
                credits = units * PRICES[event["type"]] / MICRO / MICRO
                assert credits.denominator == 1, event
                assert credits > 0
