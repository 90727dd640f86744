"""The verifier's shop is not blind: a grant that is missing, too large or doubled is noticed."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from cli.verification.differences import Differences
from cli.verification.shop import ORGANIZATION, PACKAGE, POOLS, QUANTITY, Shop
from cli.verification.topic_contents import Contents
from schemas import codec
from schemas.records import CreditRecord, Granted, Revoked
from schemas.topics import CREDITS

BOUGHT = QUANTITY * PACKAGE.credits_micro
PAID, REFUNDED = 1_000, 333
RIGHT = BOUGHT * REFUNDED // PAID
AT = datetime(2026, 11, 1, tzinfo=UTC)
OBJECTS: dict[str, list[dict[str, Any]]] = {
    "checkout.session": [
        {"id": "cs", "client_reference_id": "buy", "payment_intent": "pi", "subscription": None}
    ],
    "charge": [{"id": "ch", "payment_intent": "pi", "amount": PAID, "status": "succeeded"}],
    "refund": [{"charge": "ch", "amount": REFUNDED}],
}


def granted(grant_id: str = "stripe:cs", amount: int = BOUGHT) -> Granted:
    return Granted(grant_id, "group", POOLS[0][1], "one_time", amount, "stripe:cs", None, False)


def found(*facts: Granted | Revoked) -> Differences:
    """What the shop says of a topic with these facts."""
    shop: Any = Shop(SimpleNamespace(), 1, print)  # type: ignore[arg-type]
    shop._driver = SimpleNamespace(all=lambda kind: OBJECTS.get(kind, []))
    shop._sold["buy"] = POOLS[0]
    records = [
        SimpleNamespace(
            key=ORGANIZATION.encode(),
            value=codec.encode(CreditRecord(ORGANIZATION, version, AT, AT, fact)),
        )
        for version, fact in enumerate(facts, 1)
    ]
    differences = Differences()
    shop.take(Contents(0, {CREDITS: records}), differences)
    shop.compare(differences)
    return differences


def test_what_was_paid_less_refunded_is_right() -> None:
    assert found(granted(), Revoked("stripe:cs", RIGHT, "refund")).total == 0


@pytest.mark.parametrize(
    ("facts", "lost", "duplicated"),
    [
        ([], 1, 0),
        ([granted()], 0, 1),
        ([granted(), Revoked("stripe:cs", RIGHT + 1, "refund")], 1, 0),
        ([granted(), granted(), Revoked("stripe:cs", BOUGHT + RIGHT, "refund")], 0, 1),
    ],
    ids=["no grant", "refund not taken", "a micro-credit too much taken", "the same grant twice"],
)
def test_a_difference_is_noticed(facts: list[Any], lost: int, duplicated: int) -> None:
    differences = found(*facts)
    assert (differences.lost, differences.duplicated) == (lost, duplicated)
