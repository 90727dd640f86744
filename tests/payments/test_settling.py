"""What is written when a purchase is settled, on both databases, and what the worker then has."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from api.errors import Refused
from api.payments.seen import Payment, Seen
from api.payments.settling import (
    PurchaseKey,
    Settled,
    Stale,
    place_renewal,
    revision_of,
    settle,
)
from api.rules.change import Control
from api.rules.credits import NewGrant, grant
from api.storage.ledgers import AuditEntry, Grant, OutboxFact
from api.storage.purchases import (
    BoughtGrant,
    Invoice,
    Subscription,
)
from schemas.records import INT64_MAX
from tests.api.conftest import ADMIN
from tests.payments import pictures
from tests.payments.purchases import (
    MONTH,
    START,
    grants,
    look,
    new_purchase,
    paid_session,
)
from tests.payments.written import left_in_pool, purchase_row, rows

PAID = Seen("stripe", paid_session())
FIRST = pictures.monthly("active@1 1:paid")


def refunded(packages: int) -> Seen:
    return pictures.one_time(f"paid r={packages}")


def test_a_payment_is_one_grant_however_often_it_is_seen(control: Control) -> None:
    key = new_purchase(control)
    first = look(control, key, PAID)
    written = rows(control, OutboxFact), rows(control, AuditEntry)
    again = look(control, key, PAID)
    assert first.differences == (
        "purchase pur_1: created → paid",
        "granted stripe:cs_1: 3 credits",
    )
    assert (again.differences, again.revision) == ((), 2)
    assert (rows(control, OutboxFact), rows(control, AuditEntry)) == written
    assert grants(control) == {"stripe:cs_1": (3_000_000, 3_000_000)}
    part = Seen("stripe", paid_session(Payment("py_1", 2700, 901)))
    assert look(control, key, part).differences == (
        "revoked 1.001111 credits of stripe:cs_1: refund",
    )
    assert left_in_pool(control) == 1_998_889


def test_who_did_it_is_the_provider(control: Control) -> None:
    key = new_purchase(control)
    look(control, key, PAID)
    look(control, key, refunded(1))
    with control.store.read() as session:
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.actor == "stripe").order_by(AuditEntry.id)
        )
        assert [(entry.action, entry.subject_id) for entry in entries] == [
            ("purchase.follow", "pur_1"),
            ("grant.create", "stripe:cs_1"),
            ("grant.revoke", "stripe:cs_1"),
        ]


def test_a_session_that_its_row_never_heard_of_is_adopted(control: Control) -> None:
    """A crash between the provider's answer and our row."""
    key = new_purchase(control, session_id=None)
    ends_at = START + timedelta(days=30)
    opened = paid_session(
        status="open", payment_status="unpaid", url="https://pay.example/1", expires_at=ends_at
    )
    look(control, key, Seen("stripe", opened))
    purchase = purchase_row(control, key)
    assert (purchase.session_id, purchase.checkout_url) == ("cs_1", "https://pay.example/1")
    assert (purchase.state, purchase.look_at) == (
        "awaiting_payment",
        ends_at + timedelta(minutes=1),
    )
    look(control, key, Seen("stripe", paid_session(payment_intent_id="pi_1")))
    assert (purchase_row(control, key).payment_intent_id, purchase_row(control, key).look_at) == (
        "pi_1",
        None,
    )


def test_a_subscription_is_followed_with_its_invoices(control: Control) -> None:
    key = new_purchase(control, "monthly")
    assert look(control, key, FIRST).differences == (
        "purchase pur_1: created → paid",
        "subscription sub_1: active",
        "invoice in_1: paid",
        "granted stripe:in_1:il_1: 3 credits",
    )
    assert look(control, key, FIRST).differences == ()
    ending = pictures.monthly("past-@2 1:paid 2:open")
    assert look(control, key, ending).differences == (
        "subscription sub_1: past_due, to end with its period",
        "invoice in_2: open",
        "granted stripe:in_2:il_2: 3 credits, awaiting payment",
    )
    paid = pictures.monthly("active@2 1:paid 2:paid")
    assert look(control, key, paid).differences == (
        "subscription sub_1: active",
        "invoice in_2: open → paid",
        "confirmed stripe:in_2:il_2: its invoice is paid",
    )
    with control.store.read() as session:
        row = session.get_one(Subscription, ("org_a", "pur_1"))
        assert (row.status, row.current_period_end) == ("active", START + 2 * MONTH)
        assert session.get_one(Invoice, ("org_a", "stripe", "in_2")).credits_micro == 3_000_000
        assert not session.get_one(Grant, ("org_a", "stripe:in_2:il_2")).awaiting_payment


def test_an_older_look_is_stale(control: Control) -> None:
    """Also where the newer one changed nothing: what came between may be undone by now."""
    key = new_purchase(control)
    look(control, key, PAID)
    began_at = revision_of(control, key)
    assert look(control, key, PAID).differences == ()
    with pytest.raises(Stale):
        settle(control, key, began_at, refunded(3))
    assert grants(control) == {"stripe:cs_1": (3_000_000, 3_000_000)}


def at_once(*tasks: Callable[[], object]) -> list[object]:
    """What each answered, or the exception's class."""
    together = Barrier(len(tasks))

    def run(task: Callable[[], object]) -> object:
        together.wait()
        try:
            return task()
        except (Stale, Refused) as error:
            return type(error)

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def test_of_settlers_at_once_one_writes(control: Control) -> None:
    key = new_purchase(control)
    answers = at_once(*[lambda: settle(control, key, 0, PAID)] * 4)
    assert sorted(isinstance(answer, Settled) for answer in answers) == [False] * 3 + [True]
    assert answers.count(Stale) == 3
    assert grants(control) == {"stripe:cs_1": (3_000_000, 3_000_000)}


def test_a_renewal_that_is_placed_while_its_invoice_is_settled_is_one_grant(
    control: Control,
) -> None:
    key = new_purchase(control, "monthly")
    look(control, key, FIRST)
    start, end = START + MONTH, START + 2 * MONTH
    drafted = pictures.monthly("active@2 1:paid 2:draft")
    at_once(
        lambda: place_renewal(control, key, "sub_1", start, end),
        lambda: place_renewal(control, key, "sub_1", start, end),
        lambda: settle(control, key, 1, drafted),
    )
    look(control, key, pictures.monthly("active@2 1:paid 2:paid"))
    assert sum(left for _, left in grants(control).values()) == 6_000_000
    assert len(grants(control)) == 2
    assert left_in_pool(control) == 6_000_000


@pytest.mark.parametrize("where", ["before_flush", "after_flush", "before_commit"])
def test_a_crash_leaves_nothing_behind(control: Control, where: str) -> None:
    key = new_purchase(control)
    before = rows(control, OutboxFact), rows(control, AuditEntry)

    def crash(*_: object) -> None:
        raise ZeroDivisionError

    event.listen(Session, where, crash)
    try:
        with pytest.raises(ZeroDivisionError):
            settle(control, key, 0, PAID)
    finally:
        event.remove(Session, where, crash)
    assert (rows(control, OutboxFact), rows(control, AuditEntry)) == before
    assert (grants(control), revision_of(control, key)) == ({}, 0)
    assert settle(control, key, 0, PAID).revision == 1
    assert left_in_pool(control) == 3_000_000


def test_what_the_database_knows_better_is_stale_not_a_crash(control: Control) -> None:
    key = new_purchase(control, "monthly")
    other = new_purchase(control, "monthly", purchase_id="pur_2", session_id="cs_2")
    with control.change("org_a", ADMIN) as change:
        grant(change, NewGrant("group", "group_a", "one_time", 1, "admin:x", grant_id="strange"))
        row = BoughtGrant(
            organization_id="org_a",
            grant_id="strange",
            purchase_id=other.purchase_id,
            provider="stripe",
            invoice_id="in_1",
            line_id="il_1",
        )
        change.session.add(row)
    with pytest.raises(Stale):
        settle(control, key, 0, FIRST)
    assert list(grants(control)) == ["strange"]


def test_a_purchase_is_only_seen_by_its_provider(control: Control) -> None:
    key = new_purchase(control)
    with pytest.raises(ValueError, match="partner:acme"):
        settle(control, key, 0, Seen("partner:acme", paid_session()))


def test_an_unknown_purchase_is_refused(control: Control) -> None:
    key = PurchaseKey("org_a", "pur_9")
    for ask in (
        lambda: revision_of(control, key),
        lambda: settle(control, key, 0, PAID),
        lambda: place_renewal(control, key, "sub_1", START, START + MONTH),
    ):
        with pytest.raises(Refused) as refused:
            ask()
        assert refused.value.status == 404


def test_a_renewal_is_placed_once_and_only_for_what_comes_next(control: Control) -> None:
    key = new_purchase(control, "monthly")
    start, end = START + MONTH, START + 2 * MONTH
    assert place_renewal(control, key, "sub_1", start, end) is None
    look(control, key, FIRST)
    assert place_renewal(control, key, "sub_2", start, end) is None
    assert place_renewal(control, key, "sub_1", end, end + MONTH) is None
    placed = place_renewal(control, key, "sub_1", start, end)
    assert placed == f"stripe:sub_1:{int(start.timestamp())}"
    assert place_renewal(control, key, "sub_1", start, end) is None
    look(control, key, pictures.monthly("past@2 1:paid 2:draft"))
    assert place_renewal(control, key, "sub_1", end, end + MONTH) is None
    mended = look(control, key, pictures.monthly("active@2 1:paid 2:paid"))
    assert f"confirmed {placed}: its invoice is paid" in mended.differences
    assert list(grants(control)) == ["stripe:in_1:il_1", placed]
    look(control, key, pictures.monthly("active-@2 1:paid 2:paid"))
    assert place_renewal(control, key, "sub_1", end, end + MONTH) is None
    assert left_in_pool(control) == 6_000_000


def test_a_partner_s_charge_is_settled_alike(control: Control) -> None:
    key = new_purchase(control, provider="partner:acme")
    look(control, key, Seen("partner:acme", paid_session(id="cs_1")))
    assert list(grants(control)) == ["partner:acme:cs_1"]


def test_the_largest_purchase_fits(control: Control) -> None:
    each = INT64_MAX // 50
    key = new_purchase(control, quantity=50, package_credits_micro=each)
    session = paid_session(Payment("py_1", 45_000, 44_999), quantity=50, subtotal_minor=45_000)
    look(control, key, Seen("stripe", session))
    left = 50 * each - 50 * each * 44_999 // 45_000
    assert grants(control) == {"stripe:cs_1": (50 * each, left)}
    assert left_in_pool(control) == left


def test_a_long_history_is_what_the_worker_has(control: Control) -> None:
    """Through disputes, refunds and a renewal that failed: no fact is refused, and the pool holds
    what is left of the grants."""
    key = new_purchase(control, "monthly")
    for text in (
        "active@1 1:paid",
        "active@1 1:paid d1=o3",
        "active@1 1:paid d1=w3",
        "active@1 1:paid r=1 d1=w3",
        "active@2 1:paid r=1 d1=w3 2:draft",
        "unpaid@2 1:paid r=1 d1=w3 2:open",
        "active@2 1:paid r=1 d1=w3 2:paid",
        "active@2 1:paid r=1 d1=w3 2:paid d2=o1 r=1",
        "active@2 1:paid d1=w3 2:paid d2=w1 r=1",
    ):
        assert look(control, key, pictures.monthly(text)).problems == ()
        left = sum(left for _, left in grants(control).values())
        assert left_in_pool(control) == left
    assert left == 5_000_000
