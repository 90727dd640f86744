"""The rule of money, row by row: what a provider says, and what is then true here.

Several pictures are parted by `;` and seen one after the other (`tests.payments.pictures` tells
the words). Three packages were sold. Of each grant the packages granted and left are shown, `?`
where it awaits payment; its name is `s` (of the session), `2` (of the second invoice), `d1:won`, …
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from api.payments.seen import Seen
from api.payments.settlement import wanted
from api.payments.terms import Held
from schemas.records import INT64_MAX, GrantKind
from tests.decisions.tables import table
from tests.payments import pictures
from tests.payments.books import ONE_TIME, Books, problems_of
from tests.payments.purchases import START, invoice, paid_session


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
    paid;paid r=3;none                     | paid     | s 3/0                       |
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
    assert (books.state, books.shown(), problems_of(want)) == (state, grants, problem)


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
    just_over = ends_at + timedelta(seconds=59)
    assert wanted(ONE_TIME, Held(), seen, just_over).look_at == ends_at + timedelta(minutes=1)
    late = ends_at + timedelta(minutes=1)
    assert wanted(ONE_TIME, Held(), seen, late).look_at == late + timedelta(hours=1)
    assert wanted(ONE_TIME, Held(), pictures.one_time("paid"), START).look_at is None


@table("""
    seen                               | why
    paid;paid r=1                      | refund
    paid;paid d1=o1                    | dispute dp_1
    paid;paid r=1 d1=w1 d3=l1 d2=o1    | refund and dispute dp_2
    paid;failed                        | the payment failed
""")
def test_why_credits_are_revoked(seen: str, why: str) -> None:
    books = Books(ONE_TIME)
    for text in seen.split(";"):
        want = books.look(pictures.one_time(text), START)
    assert want.grants[0].why == why


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
