"""Whatever of a provider's history is seen, in any order and however often: once its last picture
was seen, what is left is what was paid for and not taken back."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from math import floor

from hypothesis import given
from hypothesis import strategies as st

from api.payments.monthly import may_place_ahead
from api.payments.seen import Dispute, DisputeState, Invoice, Payment, Seen
from tests.payments.books import MONTHLY, ONE_TIME, Books
from tests.payments.purchases import MONTH, PRICE, START, invoice, paid_session, subscription

FULL = 3 * PRICE
LIVE = ("active", "past_due")


@dataclass
class Charge:
    """Money at the provider, as its own books would have it."""

    id: str
    paid: int = FULL
    refunded: int = 0
    disputes: dict[str, tuple[int, DisputeState]] = field(default_factory=dict)

    def payment(self) -> Payment:
        disputes = (Dispute(name, *each) for name, each in sorted(self.disputes.items()))
        return Payment(self.id, self.paid, self.refunded, tuple(disputes))

    def move(self, what: str, amount: int) -> None:
        """One thing that can happen to money that was paid."""
        if what == "refund":
            self.refunded = min(self.paid, self.refunded + amount)
        elif what == "refund-fails":
            self.refunded = max(0, self.refunded - amount)
        elif what == "dispute" and len(self.disputes) < 3:
            self.disputes[f"dp_{self.id}_{len(self.disputes)}"] = amount, "open"
        elif what in ("won", "lost"):
            for name, (of, state) in self.disputes.items():
                if state == "open":
                    self.disputes[name] = of, "won" if what == "won" else "lost"
                    break

    def expected(self, credits: int) -> int:
        """What is left of them, by the rule as it is written in the design."""
        held_back = sum(amount for amount, state in self.disputes.values() if state != "won")
        taken = min(self.paid, self.refunded + held_back)
        return credits - floor(credits * Fraction(taken, self.paid))


MOVES = st.tuples(
    st.sampled_from(["refund", "refund-fails", "dispute", "won", "lost"]), st.integers(1, FULL)
)


@given(st.lists(MOVES, max_size=12), st.integers(1, 10**13), st.data())
def test_a_purchase_ends_in_what_was_paid_for(
    moves: list[tuple[str, int]], package: int, data: st.DataObject
) -> None:
    sold = replace(ONE_TIME, package_credits_micro=package)
    unpaid = Seen("stripe", paid_session(payment_status="unpaid", payments=()))
    charge = Charge("py_1")
    history = [Seen("stripe"), unpaid, Seen("stripe", paid_session(charge.payment()))]
    for move in moves:
        charge.move(*move)
        history.append(Seen("stripe", paid_session(charge.payment())))
    books = Books(sold)
    for at in data.draw(st.lists(st.integers(0, len(history) - 1), max_size=12), "looks"):
        books.look(history[at], START)
        assert books.left_micro <= sold.credits_micro
    books.look(history[-1], START)
    assert books.left_micro == charge.expected(sold.credits_micro)
    granted = sum(each.amount_micro for each in books.held.grants)
    revoked = sum(each.revoked_micro for each in books.held.grants)
    assert granted - revoked == books.left_micro
    given_back = granted - sum(each.id == "stripe:cs_1" for each in books.held.grants) * (
        sold.credits_micro
    )
    assert 0 <= given_back <= revoked


@dataclass
class Billing:
    """A subscription at the provider, with the invoices of its periods."""

    period: int = 1
    status: str = "active"
    is_ending: bool = False
    statuses: dict[int, str] = field(default_factory=lambda: {1: "paid"})
    charges: dict[int, Charge] = field(default_factory=lambda: {1: Charge("py_1")})

    def move(self, what: str, number: int, amount: int) -> None:
        """One thing that can happen, where it can."""
        number = min(number, self.period)
        status = self.statuses.get(number, "none")
        is_due = status in ("draft", "open", "uncollectible")
        if what == "renew":
            self._renew()
        elif what == "finalize" and status == "draft":
            self.statuses[number] = "open"
        elif what == "pay" and is_due:
            self.statuses[number] = "paid"
            self.charges[number] = Charge(f"py_{number}")
            if self.status in LIVE or self.status == "unpaid":
                self.status = "active"
        elif what in ("void", "uncollectible") and is_due:
            self.statuses[number] = what
        elif what in ("past_due", "unpaid") and self.status != "canceled":
            self.status = what
        elif what == "cancel":
            self.status = "canceled"
        elif what in ("end", "resume") and self.status != "canceled":
            self.is_ending = what == "end"
        elif number in self.charges:
            self.charges[number].move(what, amount)

    def _renew(self) -> None:
        if self.is_ending:
            self.status = "canceled"
        if self.status != "canceled" and self.period < 4:
            self.period += 1
            self.statuses[self.period] = "draft"

    def seen(self) -> Seen:
        ended_at = START if self.status == "canceled" else None
        found = subscription(
            self.period, self.status, cancel_at_period_end=self.is_ending, ended_at=ended_at
        )
        listed = tuple(self._invoice(number) for number in sorted(self.statuses))
        return Seen("stripe", paid_session(payments=()), found, listed)

    def _invoice(self, number: int) -> Invoice:
        charge = self.charges.get(number)
        payments = (charge.payment(),) if charge is not None else ()
        return invoice(number, self.statuses[number], *payments)

    def expected(self, number: int) -> int:
        """What is left of a period that was billed."""
        credits = MONTHLY.credits_micro
        status = self.statuses[number]
        if status == "paid":
            return self.charges[number].expected(credits)
        waiting = [each for each, of in self.statuses.items() if of in ("draft", "open")]
        is_first = status in ("draft", "open") and number == min(waiting)
        return credits if is_first and self.status in LIVE else 0


HAPPENS = (
    "renew renew renew finalize pay pay void uncollectible past_due unpaid cancel end resume refund"
    " refund-fails dispute won lost"
)
BILLING_MOVES = st.tuples(
    st.sampled_from(HAPPENS.split()),
    st.integers(1, 4),
    st.integers(1, FULL),
)


@given(st.lists(BILLING_MOVES, max_size=16), st.data())
def test_months_end_in_what_was_paid_for(
    moves: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """Between the looks the renewals' loop places what it may by what is held; -1 is that loop."""
    billing, books = Billing(), Books(MONTHLY)
    history = [billing.seen()]
    for move in moves:
        billing.move(*move)
        history.append(billing.seen())
    looks = data.draw(st.lists(st.integers(-1, len(history) - 1), max_size=14), "looks")
    for at in [*looks, len(history) - 1]:
        if at == -1:
            place_ahead(books)
        else:
            books.look(history[at], START)
    assert {number: books.of_period(start(number)) for number in billing.statuses} == {
        number: billing.expected(number) for number in billing.statuses
    }
    to_come = books.of_period(start(billing.period + 1))
    is_waited_for = billing.status in LIVE and not billing.is_ending
    assert to_come in ((0, MONTHLY.credits_micro) if is_waited_for else (0,))
    awaited = [each for each in books.held.grants if each.awaiting_payment and each.left_micro]
    assert len({each.effective_at for each in awaited}) <= 1


def start(number: int) -> datetime:
    return START + (number - 1) * MONTH


def place_ahead(books: Books) -> None:
    known = books.held.subscription
    if known is None or known.current_period_end is None:
        return
    if may_place_ahead(books.held, "sub_1", known.current_period_end):
        books.place("sub_1", known.current_period_end, known.current_period_end + MONTH)
