"""The rule of money for monthly purchases, row by row; read as `test_settlement.py`."""

from dataclasses import replace
from datetime import timedelta

from api.payments.monthly import may_place_ahead
from api.payments.seen import Seen
from api.payments.settlement import wanted
from api.payments.terms import Held, Options
from tests.decisions.tables import table
from tests.payments import pictures
from tests.payments.books import MONTHLY, Books, problems_of
from tests.payments.purchases import MONTH, START, invoice, subscription


@table("""
    seen                                   | state    | grants           | problem
    open                                   | awaiting |                  |
    expired                                | expired  |                  |
    failed                                 | failed   |                  |
    incomplete@1 1:open                    | awaiting |                  |
    expired@1 1:void                       | expired  |                  |
    active@1 1:paid                        | paid     | 1 3/3            |
    active@1 1:paid p=0                    | paid     | 1 3/3            |
    active@1 1:paid;active@1 1:paid        | paid     | 1 3/3            |
    active@2 1:paid 2:draft                | paid     | 1 3/3 2 3/3?     |
    active@2 1:paid 2:open                 | paid     | 1 3/3 2 3/3?     |
    active@2 1:paid 2:draft;active@2 1:paid 2:paid | paid     | 1 3/3 2 3/3      |
    past@2 1:paid 2:open                   | paid     | 1 3/3 2 3/3?     |
    past@2 1:paid 2:open;unpaid@2 1:paid 2:open | paid     | 1 3/3 2 3/0?     |
    past@2 1:paid 2:open;active@2 1:paid 2:paid | paid     | 1 3/3 2 3/3      |
    active@2 2:open;active@2 2:void        | awaiting | 2 3/0?           |
    active@2 2:open;active@2 2:uncollectible | awaiting | 2 3/0?           |
    active@2 2:open;active@2 2:uncollectible;active@2 2:paid | paid     | 2 3/0 2:a1 3/3   |
    active@2 2:open;canceled@2 2:open      | awaiting | 2 3/0?           |
    active@2 2:open;canceled@2 2:open;canceled@2 2:paid | paid     | 2 3/0 2:a1 3/3   |
    active@2 2:paid;canceled@2 2:paid      | paid     | 2 3/3            |
    active@2 2:open;gone canceled@2 2:void | awaiting | 2 3/0?           |
    active@2 2:open;gone                   | awaiting | 2 3/0?           |
    active@2 2:open;gone;gone              | awaiting | 2 3/0?           |
    active@2 2:paid;gone                   | paid     | 2 3/3            | no_payment
    active@2 2:paid;none                   | paid     | 2 3/3            |
    gone                                   | created  |                  |
    active@2 2:draft;active@2              | awaiting | 2 3/0?           |
    active@2 2:draft;active@2 2:open line=il_x | awaiting | 2 3/0? 2x 3/3?   |
    active@2 2:draft;active@2 2:paid line=il_x | paid     | 2 3/0? 2x 3/3    |
    past@3 2:open 3:open                   | awaiting | 2 3/3?           |
    past@3 2:open;past@3 2:open 3:open;past@3 2:paid 3:open | paid     | 2 3/3 3 3/3?     |
    past@3 2:open 3:paid                   | paid     | 2 3/3? 3 3/3     |
    active@3 3:open;past@3 2:open 3:open   | awaiting | 2 3/3? 3 3/0?    |
    active@2 1:paid r=3 2:paid r=1         | paid     | 2 3/2            |
    active@1 1:paid;active@1 1:paid r=1    | paid     | 1 3/2            |
    active@1 1:paid;active@1 1:paid d1=o3;canceled@1 1:paid d1=w3 | paid     | d1:won 3/3 1 3/0 |
    active@1 1:paid quantity=2             | awaiting |                  | does_not_fit
    active@1 1:paid amount=1               | awaiting |                  | does_not_fit
    active@1 1:paid currency=eur           | awaiting |                  | does_not_fit
    active@1 1:paid days=0                 | awaiting |                  | does_not_fit
    active@1 1:paid currency=eur r=3       | awaiting |                  |
    active@1 1:open currency=eur           | awaiting |                  |
    active@1 1:paid amount=0               | awaiting |                  |
    active@1 1:paid proration=1            | awaiting |                  |
    active@2 1:paid 2:paid reason=update   | paid     | 1 3/3            | not_sold
    active@2 1:paid 2:paid reason=manual r=3 | paid     | 1 3/3            |
    active@2 1:paid 2:open reason=manual   | paid     | 1 3/3            |
    active@2 2:draft;active@2 2:draft quantity=5 | awaiting | 2 3/3?           |
    active@2 2:draft;active@2 2:void quantity=5 | awaiting | 2 3/0?           |
    active@2 2:draft;active@2 2:paid quantity=5 | awaiting | 2 3/3?           | does_not_fit
    active@2 2:draft;active@2 2:paid quantity=5 r=3 | awaiting | 2 3/0?           |
    active@2 2:draft;canceled@2 2:open quantity=5 | awaiting | 2 3/0?           |
""")
def test_monthly(seen: str, state: str, grants: str, problem: str) -> None:
    books = Books(MONTHLY)
    for text in seen.split(";"):
        want = books.look(pictures.monthly(text), START + MONTH)
    assert (books.state, books.shown(), problems_of(want)) == (state, grants, problem)


PLACED = f"sub_1:{int((START + MONTH).timestamp())}"


@table("""
    seen                                   | placed | others       | problem
    active@1 1:paid                        | 3/3?   | 1 3/3        |
    active@1 1:paid;active@2 1:paid        | 3/3?   | 1 3/3        |
    active@2 1:paid 2:draft                | 3/3?   | 1 3/3        |
    active@2 1:paid 2:draft;active@2 1:paid 2:paid | 3/3    | 1 3/3        |
    active@2 1:paid 2:paid                 | 3/3    | 1 3/3        |
    active@2 1:paid 2:void                 | 3/0?   | 1 3/3        |
    active@2 1:paid 2:paid r=1             | 3/2    | 1 3/3        |
    active@2 1:paid 2:paid days=31         | 3/0?   | 1 3/3 2 3/3  |
    active@2 1:paid 2:open quantity=5      | 3/3?   | 1 3/3        |
    active@2 1:paid 2:paid quantity=5      | 3/3?   | 1 3/3        | does_not_fit
    active@2 1:paid 2:void quantity=5      | 3/0?   | 1 3/3        |
    canceled@2 1:paid 2:open quantity=5    | 3/0?   | 1 3/3        |
    active-@1 1:paid                       | 3/0?   | 1 3/3        |
    active-@2 1:paid                       | 3/3?   | 1 3/3        |
    active@1 1:paid 1:draft line=il_x      | 3/3?   | 1 3/3        |
    canceled@1 1:paid                      | 3/0?   | 1 3/3        |
    gone                                   | 3/0?   |              |
    active@3 1:paid                        | 3/0?   | 1 3/3        |
    active@3 1:paid 3:open                 | 3/0?   | 1 3/3 3 3/3? |
    past@1 1:paid 0:open                   | 3/0?   | 0 3/3? 1 3/3 |
""")
def test_a_renewal_placed_ahead(seen: str, placed: str, others: str, problem: str) -> None:
    books = Books(MONTHLY)
    books.place("sub_1", START + MONTH, START + 2 * MONTH)
    for text in seen.split(";"):
        want = books.look(pictures.monthly(text), START + MONTH - timedelta(minutes=30))
    expected = sorted([*_pairs(others), f"{PLACED} {placed}"])
    assert (sorted(_pairs(books.shown())), problems_of(want)) == (expected, problem)


def _pairs(text: str) -> list[str]:
    words = text.split()
    return [f"{name} {shown}" for name, shown in zip(words[::2], words[1::2], strict=True)]


def test_a_renewal_is_given_back_when_the_subscription_is_resumed() -> None:
    books = Books(MONTHLY)
    books.place("sub_1", START + MONTH, START + 2 * MONTH)
    for text in ("active-@1", "active@1", "active@2 2:open", "active@2 2:paid"):
        books.look(pictures.monthly(text), START + MONTH)
    assert books.shown() == f"{PLACED} 3/0 {PLACED}:a1 3/3"
    assert books.held.grants[0].identity.invoice_id == "in_2"


@table("""
    seen                    | may
    active@1 1:paid         | yes
    active@1                | yes
    past@1 1:paid           | yes
    active-@1 1:paid        | no
    unpaid@1 1:paid         | no
    canceled@1 1:paid       | no
    active@2 1:paid         | no
    active@1 0:open         | no
    active@1 0:open;active@1 0:void | yes
    active@1 1:paid 2:draft | no
    none                    | no
""")
def test_what_may_be_placed_ahead(seen: str, may: str) -> None:
    books = Books(MONTHLY)
    for text in seen.split(";"):
        books.look(pictures.monthly(text), START)
    assert may_place_ahead(books.held, "sub_1", START + MONTH) == (may == "yes")
    assert not may_place_ahead(books.held, "sub_2", START + MONTH)


def test_a_renewal_that_was_never_billed_goes_with_its_period() -> None:
    books = Books(MONTHLY)
    books.place("sub_1", START + MONTH, START + 2 * MONTH)
    books.look(pictures.monthly("active@2"), START + 2 * MONTH - timedelta(seconds=1))
    assert books.left_micro == 3_000_000
    want = books.look(pictures.monthly("active@2"), START + 2 * MONTH)
    assert [each.why for each in want.grants] == ["its period is over without an invoice"]
    assert books.left_micro == 0


def test_unpaid_renewals_can_wait_for_their_payment() -> None:
    books = Books(MONTHLY, Options(place_unpaid_renewals=False))
    books.look(pictures.monthly("active@2 1:paid 2:open"), START + MONTH)
    assert books.shown() == "1 3/3"
    books.look(pictures.monthly("active@2 1:paid 2:paid"), START + MONTH)
    assert books.shown() == "1 3/3 2 3/3"


def test_a_monthly_grant_is_that_of_its_period_however_late_it_is_seen() -> None:
    books = Books(MONTHLY)
    want = books.look(pictures.monthly("active@3 1:paid"), START + 5 * MONTH)
    (grant,) = want.grants
    assert (grant.effective_at, grant.expires_at) == (START, START + MONTH)
    assert grant.identity.period_start == START


def test_each_line_of_an_invoice_is_a_grant_and_two_never_share_a_period() -> None:
    """A dispute that was won gives back to each line what it took from it."""
    one = invoice(1, "paid")
    other = invoice(1, "paid", line={"id": "il_2"}).lines[0]
    books = Books(MONTHLY)

    def seen(words: str) -> Seen:
        payments = (pictures.payment(words.split(), paid=5400),)
        both = replace(one, lines=(other, *one.lines), payments=payments)
        return replace(pictures.monthly("active@1"), invoices=(both,))

    for words in ("", "d1=o3", "d1=w3"):
        books.look(seen(words), START)
    assert books.shown() == "d1:won 1.5/1.5 d1:won:il_2 1.5/1.5 1 3/1.5 12 3/1.5"


def test_refunds_count_over_all_payments_of_an_invoice() -> None:
    books = Books(MONTHLY)
    parts = [
        pictures.payment(["r=300m"], "py_1", 900),
        pictures.payment([], "py_2", 900),
        pictures.payment(["r=150m", "d1=o450m"], "py_3", 900),
    ]
    paid = replace(invoice(1, "paid", *parts), amount_paid_minor=0)
    want = books.look(replace(pictures.monthly("active@1"), invoices=(paid,)), START)
    assert books.shown() == "1 3/2"
    assert want.invoices[0].amount_refunded_minor == 450


def test_what_was_paid_elsewhere_counts_as_paid() -> None:
    books = Books(MONTHLY)
    half = invoice(1, "paid", pictures.payment(["r=1350m"], "py_1", 1350))
    books.look(replace(pictures.monthly("active@1"), invoices=(half,)), START)
    assert books.shown() == "1 3/1.5"


def test_with_its_customer_a_subscription_ends() -> None:
    """When it is first seen, and once."""
    books = Books(MONTHLY)
    books.look(pictures.monthly("active@1 1:paid"), START)
    assert books.look(pictures.monthly("none"), START).subscription == books.held.subscription
    for later in (1, 2):
        books.look(pictures.monthly("gone"), START + timedelta(days=later))
        assert books.held.subscription is not None
        ended = books.held.subscription
        assert (ended.status, ended.ended_at) == ("canceled", START + timedelta(days=1))


def test_a_line_that_is_its_invoice_gives_the_grant_its_id() -> None:
    books = Books(replace(MONTHLY, provider="partner:acme"))
    charge = invoice(1, "paid", line={"id": "in_1"})
    seen = Seen("partner:acme", None, subscription(1), (charge,))
    books.look(seen, START)
    assert [grant.id for grant in books.held.grants] == ["partner:acme:in_1"]


def test_a_grant_beyond_the_newest_invoices_stays() -> None:
    books = Books(MONTHLY)
    books.look(pictures.monthly("active@1 1:paid"), START)
    later = tuple(invoice(number, "void") for number in range(2, 102))
    seen = replace(pictures.monthly("active@101"), invoices=later)
    assert books.look(seen, START).problems == ()
    with_gap = replace(seen, invoices=(invoice(0, "void"), *later[1:]))
    assert [each.code for each in books.look(with_gap, START).problems] == ["no_payment"]
    assert books.shown() == "1 3/3"


@table("""
    seen                                      | why
    active@2 2:open;active@2 2:void           | invoice in_2 is void
    active@2 2:open;canceled@2 2:open         | the subscription ended without payment
    active@2 2:open;active@2                  | invoice in_2 is gone
    active@3 3:open;past@3 2:open 3:open      | invoice in_2 is not paid yet
    active@2 2:paid;active@2 2:paid d1=l1     | dispute dp_1
""")
def test_why_a_month_is_revoked(seen: str, why: str) -> None:
    books = Books(MONTHLY)
    for text in seen.split(";"):
        want = books.look(pictures.monthly(text), START + MONTH)
    assert [grant.why for grant in want.grants if grant.revoked_micro] == [why]


def test_the_history_says_what_an_invoice_paid_for() -> None:
    seen = pictures.monthly("active@2 1:paid r=1 2:paid quantity=5 3:paid reason=manual")
    rows = wanted(MONTHLY, Held(), seen, START).invoices
    assert [(row.credits_micro, row.amount_refunded_minor) for row in rows] == [
        (3_000_000, 900),
        (0, 0),
        (0, 0),
    ]
    assert (rows[0].period_start, rows[0].period_end) == (START, START + MONTH)
    empty = replace(invoice(1, "draft"), lines=())
    (row,) = wanted(MONTHLY, Held(), replace(seen, invoices=(empty,)), START).invoices
    assert row.period_start is None
