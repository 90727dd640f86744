"""The rule of money, row by row: what a provider says, and what is then true here.

Several pictures are parted by `;` and seen one after the other (`tests.payments.pictures` tells
the words). Three packages were sold. Of each grant the packages granted and left are shown, `?`
where it awaits payment; its name is `s` (of the session), `2` (of the second invoice), `d1:won`, …
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from api.payments.monthly import may_place_ahead
from api.payments.seen import Seen
from api.payments.settlement import wanted
from api.payments.terms import Held, Options, Sold, Wanted
from schemas.records import INT64_MAX, GrantKind
from tests.decisions.tables import table
from tests.payments import pictures
from tests.payments.books import Books
from tests.payments.purchases import (
    MONTH,
    PACKAGE_CREDITS,
    PRICE,
    START,
    invoice,
    paid_session,
    subscription,
)

SHORT = {"awaiting_payment": "awaiting"}
ONE_TIME = Sold(
    "org_a",
    "pur_1",
    "stripe",
    "group",
    "group_a",
    "one_time",
    3,
    PACKAGE_CREDITS,
    PRICE,
    "USD",
    "cs_1",
)
MONTHLY = Sold(
    "org_a",
    "pur_1",
    "stripe",
    "group",
    "group_a",
    "monthly",
    3,
    PACKAGE_CREDITS,
    PRICE,
    "usd",
    "cs_1",
)


def problems_of(want: Wanted) -> str:
    return " ".join(each.code for each in want.problems)


@table("""
    seen                                   | state    | grants                      | problem
    none                                   | created  |                             |
    open                                   | awaiting |                             |
    open;none                              | awaiting |                             |
    expired                                | expired  |                             |
    unpaid                                 | awaiting |                             |
    unpaid;failed                          | failed   |                             |
    unpaid;paid                            | paid     | s 3/3                       |
    paid                                   | paid     | s 3/3                       |
    paid;paid                              | paid     | s 3/3                       |
    free                                   | paid     | s 3/3                       |
    paid;open                              | paid     | s 3/3                       | not_paid
    paid;expired                           | paid     | s 3/3                       | not_paid
    paid;failed                            | failed   | s 3/0                       |
    paid;failed;paid                       | paid     | s 3/0 s:a1 3/3              |
    paid;none                              | paid     | s 3/3                       | no_payment
    paid;other                             | paid     | s 3/3                       | no_payment
    other                                  | created  |                             |
    paid r=1                               | paid     | s 3/2                       |
    paid;paid r=1                          | paid     | s 3/2                       |
    paid;paid r=1;paid r=1                 | paid     | s 3/2                       |
    paid;paid r=1m                         | paid     | s 3/2.99889                 |
    paid;paid r=2699m                      | paid     | s 3/0.001112                |
    paid r=3                               | paid     |                             |
    paid;paid r=3                          | paid     | s 3/0                       |
    paid;paid r=1;paid                     | paid     | s 3/2 s:a1 1/1              |
    paid;paid r=1;paid;paid r=3            | paid     | s 3/0 s:a1 1/0              |
    paid;paid r=1;paid;paid r=1;paid       | paid     | s 3/1 s:a1 1/1 s:a2 1/1     |
    paid;paid d1=o3                        | paid     | s 3/0                       |
    paid;paid d1=l3                        | paid     | s 3/0                       |
    paid;paid d1=w3                        | paid     | s 3/3                       |
    paid d1=o3                             | paid     |                             |
    paid d1=o3;paid d1=w3                  | paid     | s 3/3                       |
    paid d1=o1                             | paid     | s 3/2                       |
    paid;paid d1=o3;paid d1=w3             | paid     | s 3/0 d1:won 3/3            |
    paid;paid d1=o1;paid d1=w1             | paid     | s 3/2 d1:won 1/1            |
    paid;paid d1=o1;paid r=1 d1=w1         | paid     | s 3/2                       |
    paid;paid d1=o1;paid d1=w1;paid r=3 d1=w1 | paid     | s 3/0 d1:won 1/0            |
    paid;paid d1=o1;paid d1=w1;paid r=2250m d1=w1 | paid     | s 3/0 d1:won 1/0.5          |
    paid;paid r=1 d1=o3                    | paid     | s 3/0                       |
    paid;paid r=1 d1=o3;paid r=1 d1=w3     | paid     | s 3/0 d1:won 2/2            |
    paid;paid r=1 d1=o1 d2=o1              | paid     | s 3/0                       |
    paid;paid r=1 d1=o1 d2=o1;paid r=1 d1=w1 d2=o1 | paid     | s 3/0 d1:won 1/1            |
    paid;paid d1=o1 d2=o1;paid d1=w1 d2=w1 | paid     | s 3/1 d1:won 1/1 d2:won 1/1 |
    paid;paid d1=o1 d2=o1;paid d1=w1 d2=o1;paid d1=w1 d2=w1 | paid | s 3/1 d1:won 1/1 d2:won 1/1 |
    paid;paid d1=o1;paid d1=w1;paid d1=l1  | paid     | s 3/1 d1:won 1/1            |
    paid quantity=2                        | awaiting |                             | does_not_fit
    paid amount=2699                       | awaiting |                             | does_not_fit
    paid currency=eur                      | awaiting |                             | does_not_fit
    paid currency=eur r=3                  | awaiting |                             |
    paid;paid currency=eur                 | paid     | s 3/3                       | does_not_fit
    paid;paid currency=eur r=3             | paid     | s 3/0                       |
    unpaid quantity=2                      | awaiting |                             |
    paid p=2000m                           | paid     | s 3/3                       |
    paid p=2000m;paid p=2000m r=1000m      | paid     | s 3/1.5                     |
    paid p=3000m r=1000m                   | paid     | s 3/2                       |
""")
def test_one_time(seen: str, state: str, grants: str, problem: str) -> None:
    books = Books(ONE_TIME)
    for text in seen.split(";"):
        want = books.look(pictures.one_time(text), START)
    shown = (SHORT.get(books.held.state, books.held.state), books.shown(), problems_of(want))
    assert shown == (state, grants, problem)


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
    shown = (SHORT.get(books.held.state, books.held.state), books.shown(), problems_of(want))
    assert shown == (state, grants, problem)


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
    parts = [pictures.payment([], "py_1", 900), pictures.payment(["r=1"], "py_2", 1800)]
    paid = invoice(1, "paid", *parts)
    books.look(replace(pictures.monthly("active@1"), invoices=(paid,)), START)
    assert books.shown() == "1 3/2"


def test_what_was_paid_elsewhere_counts_as_paid() -> None:
    books = Books(MONTHLY)
    half = invoice(1, "paid", pictures.payment(["r=1350m"], "py_1", 1350))
    books.look(replace(pictures.monthly("active@1"), invoices=(half,)), START)
    assert books.shown() == "1 3/1.5"


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


@pytest.mark.parametrize("kind", ["one_time", "monthly"])
def test_credits_that_do_not_fit_into_int64_are_put_aside(kind: GrantKind) -> None:
    each = INT64_MAX // 3
    fits = replace(ONE_TIME, package_credits_micro=each)
    (grant,) = wanted(fits, Held(), pictures.one_time("paid"), START).grants
    assert grant.amount_micro <= INT64_MAX
    beyond = replace(fits, kind=kind, package_credits_micro=each + 1)
    seen = pictures.one_time("paid") if kind == "one_time" else pictures.monthly("active@1 1:paid")
    want = wanted(beyond, Held(), seen, START)
    assert (want.grants, problems_of(want)) == ((), "does_not_fit")


def test_what_waits_is_looked_at_again() -> None:
    ends_at = START + timedelta(hours=1)
    open_session = paid_session(status="open", payment_status="unpaid", expires_at=ends_at)
    seen = Seen("stripe", open_session)
    assert wanted(ONE_TIME, Held(), seen, START).look_at == ends_at + timedelta(minutes=1)
    late = ends_at + timedelta(minutes=1)
    assert wanted(ONE_TIME, Held(), seen, late).look_at == late + timedelta(hours=1)
    assert wanted(ONE_TIME, Held(), pictures.one_time("paid"), START).look_at is None


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


@table("""
    seen            | credits | refunded
    paid r=1        | 3000000 | 900
    unpaid          | 0       | 0
    paid quantity=2 | 0       | 0
    none            | 0       | 0
""")
def test_the_invoice_after_a_purchase(seen: str, credits: str, refunded: str) -> None:
    """It may come without its charges, which are the session's."""
    after = replace(invoice(1, "paid", billing_reason="manual"), payments=())
    picture = replace(pictures.one_time(seen), invoices=(after,))
    (row,) = wanted(ONE_TIME, Held(), picture, START).invoices
    assert (row.credits_micro, row.amount_refunded_minor) == (int(credits), int(refunded))
