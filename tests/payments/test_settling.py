"""What is written when a purchase is settled, on both databases."""

from api.payments.seen import Payment, Seen
from api.rules.change import Control
from tests.payments.purchases import (
    grants,
    invoice,
    look,
    new_purchase,
    paid_session,
    subscription,
)


def test_a_payment_is_one_grant_however_often_it_is_seen(control: Control) -> None:
    key = new_purchase(control)
    seen = Seen("stripe", paid_session())
    first = look(control, key, seen)
    again = look(control, key, seen)
    assert first.differences == (
        "purchase pur_1: created → paid",
        "granted stripe:cs_1: 3 credits",
    )
    assert (again.differences, again.revision) == ((), 2)
    assert grants(control) == {"stripe:cs_1": (3_000_000, 3_000_000)}
    refunded = Seen("stripe", paid_session(Payment("py_1", 2700, 901)))
    assert look(control, key, refunded).differences == (
        "revoked 1.001111 credits of stripe:cs_1: refund",
    )


def test_a_month_is_one_grant(control: Control) -> None:
    key = new_purchase(control, "monthly")
    seen = Seen("stripe", paid_session(), subscription(1), (invoice(1, "paid"),))
    assert look(control, key, seen).differences == (
        "purchase pur_1: created → paid",
        "subscription sub_1: active",
        "invoice in_1: paid",
        "granted stripe:in_1:il_1: 3 credits",
    )
    assert look(control, key, seen).differences == ()
