"""Everything that can happen to money, in any order: a state machine for hypothesis.

People buy, cancel and spend through the API; customers, banks and the dashboard act in Stripe; time
passes; webhooks come late, twice, in another order, forged or not at all; the API dies between any
two steps. Whenever `check` is drawn, and at the end, everything is looked at once more, and then
the books must be what the oracle says of Stripe.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from api.rules.groups import delete_group
from api.rules.members import NewMember, create_member
from api.rules.memberships import add_members
from api.rules.prices import NewPrice, set_price
from tests.money.books import differences, pool_differences, read_books
from tests.money.oracle import KINDS, Objects, Thing, taken_of
from tests.money.worker import CREDIT_MICRO, MEMBERS, METER, Worker
from tests.money.world import ORGANIZATION, PACKAGES, POOLS, SETUP, World

HOUR_S, DAY_S = 3_600, 86_400
PERIOD_S = 31 * DAY_S
STEPS_MAX = 25
"""Of a crash: beyond the longest work there is."""

crashes = st.none() | st.integers(0, STEPS_MAX)
picks = st.integers(0, 1_000)
Each = TypeVar("Each")


class Money(RuleBasedStateMachine):
    seen: ClassVar[Counter[str]] = Counter()
    """What happened in all runs, so that a test can tell that something did."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World().__enter__()
        self.worker = Worker(ORGANIZATION)
        self.waiting: list[Thing] = []
        self.closed: set[tuple[str, str]] = set()
        self.buys = 0
        self.step, self.at_step = 0, -1
        self.known = Objects()
        self.subscriptions_deleted = 0

    def teardown(self) -> None:
        try:
            self.everything_fits()
            self._count()
        finally:
            self.world.__exit__(None, None, None)

    @initialize(
        day=st.integers(0, 40),
        first=st.lists(st.tuples(st.sampled_from(POOLS), st.booleans()), min_size=1, max_size=3),
        trouble=st.lists(st.sampled_from(["refund", "dispute"]), min_size=1, max_size=3),
    )
    def set_up(
        self, day: int, first: list[tuple[tuple[str, str], bool]], trouble: list[str]
    ) -> None:
        """Some day of January or February, so that periods end where months are short; a few
        purchases are paid, some of it is taken back, and nobody has been told."""
        self.world.advance(day * DAY_S)
        with self.world.api.control.change(ORGANIZATION, SETUP) as change:
            set_price(change, NewPrice(METER, CREDIT_MICRO * 1_000_000))
            for group_id, member_id in MEMBERS.items():
                create_member(
                    change, NewMember(f"{member_id}@acme.example", "Ann", member_id=member_id)
                )
                add_members(change, group_id, [member_id], "members")
        for pool, monthly in first:
            self._buy(pool, "pkg_large", monthly, 2, None)
            self.pay(0, "succeeded")
        for number, what in enumerate(trouble):
            self.step += 1
            (self.refund if what == "refund" else self.dispute)(number, 40)

    # Buying

    @rule(
        pool=st.sampled_from(POOLS),
        package=st.sampled_from(sorted(PACKAGES)),
        monthly=st.booleans(),
        quantity=st.integers(1, 5) | st.just(50),
        crash=crashes,
        again=st.booleans(),
    )
    def buy(
        self,
        pool: tuple[str, str],
        package: str,
        monthly: bool,
        quantity: int,
        crash: int | None,
        again: bool,
    ) -> None:
        """Whoever was cut off asks again with the same key, or gives up."""
        if not self._buy(pool, package, monthly, quantity, crash) and again:
            self._buy(pool, package, monthly, quantity, None, is_new=False)

    def _buy(
        self,
        pool: tuple[str, str],
        package: str,
        monthly: bool,
        quantity: int,
        crash: int | None,
        *,
        is_new: bool = True,
    ) -> bool:
        self.buys += is_new
        path, key = f"{self.world.path(pool)}/purchases", f"buy {self.buys}"
        kind = "monthly" if monthly else "one_time"
        body = {"package_id": package, "kind": kind, "quantity": quantity}
        self._arm(crash)
        lived = self.world.survived(self.world.asked("POST", path, key, **body))
        self.world.note_sales()
        return lived

    @precondition(lambda self: self._objects("checkout.session", status="open"))
    @rule(pick=picks, outcome=st.sampled_from(["succeeded", "succeeded", "failed", "processing"]))
    def pay(self, pick: int, outcome: str) -> None:
        self.step += 1
        if session := self._one(self._objects("checkout.session", status="open"), pick):
            self.world.driver.pay(session["id"], outcome)

    @precondition(lambda self: self._objects("payment_intent", status="processing"))
    @rule(pick=picks, succeeds=st.booleans())
    def slow_payment_ends(self, pick: int, succeeds: bool) -> None:
        sessions = self._objects("checkout.session", status="complete", payment_status="unpaid")
        processing = {each["id"] for each in self._objects("payment_intent", status="processing")}
        of_invoice = {
            each["invoice"]
            for each in self._objects("invoice_payment")
            if each["payment"]["payment_intent"] in processing
        }
        waiting = [
            each
            for each in sessions
            if each["payment_intent"] in processing or each["invoice"] in of_invoice
        ]
        if session := self._one(waiting, pick):
            self.world.driver.settle(session["id"], succeeds=succeeds)

    # Time

    @rule(seconds=st.sampled_from([60, HOUR_S, 7 * HOUR_S, DAY_S, 4 * DAY_S, PERIOD_S]))
    def time_passes(self, seconds: int) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self._objects("subscription", status="active"))
    @rule(pick=picks, before_s=st.sampled_from([-2 * HOUR_S, -60, 60, HOUR_S // 2, 2 * HOUR_S]))
    def a_period_ends(self, pick: int, before_s: int) -> None:
        """Shortly before the end of a subscription's period, or after it."""
        live = self._objects("subscription", status="active")
        if subscription := self._one(live, pick):
            end_s = subscription["items"]["data"][0]["current_period_end"]
            self.world.advance(max(0, end_s - before_s - self.world.now_s))

    # What customers, banks and the dashboard do

    @precondition(lambda self: self._objects("subscription", status="active"))
    @rule(times=st.integers(1, 5))
    def cards_fail(self, times: int) -> None:
        self.world.driver.next_payments("failed", times)

    @precondition(lambda self: self._objects("invoice", status="open"))
    @rule(pick=picks, parts=st.integers(1, 3))
    def an_open_invoice_is_paid(self, pick: int, parts: int) -> None:
        open_ones = [
            each
            for each in self._objects("invoice", status="open")
            if each["amount_remaining"] > parts
        ]
        if invoice := self._one(open_ones, pick):
            rest = invoice["amount_remaining"]
            amounts = [rest // parts] * (parts - 1)
            self.world.driver.pay_invoice(invoice["id"], [*amounts, rest - sum(amounts)])

    @precondition(lambda self: self._objects("charge", status="succeeded"))
    @rule(pick=picks, share=st.sampled_from([1, 33, 50, 100]))
    def refund(self, pick: int, share: int) -> None:
        """A share of what is left, in hundredths; the dashboard also refunds what is disputed."""
        if charge := self._one(self._objects("charge", status="succeeded"), pick):
            left = charge["amount"] - charge["amount_refunded"]
            amount = max(1, left * share // 100)
            self.world.in_dashboard("POST", "refunds", charge=charge["id"], amount=amount)

    @precondition(lambda self: self._objects("refund", status="succeeded"))
    @rule(pick=picks)
    def a_refund_fails(self, pick: int) -> None:
        if refund := self._one(self._objects("refund", status="succeeded"), pick):
            self.world.driver.fail_refund(refund["id"])

    @precondition(lambda self: self._objects("charge", status="succeeded", disputed=False))
    @rule(pick=picks, share=st.sampled_from([40, 100]))
    def dispute(self, pick: int, share: int) -> None:
        charges = self._objects("charge", status="succeeded", disputed=False)
        objects = self.world.objects()
        whole = [each for each in charges if not taken_of(objects, each["id"])]
        if charge := self._one(whole, pick):
            self.world.driver.dispute(charge["id"], max(1, charge["amount"] * share // 100))

    @precondition(lambda self: self._objects("dispute", status="needs_response"))
    @rule(pick=picks, won=st.booleans())
    def a_dispute_ends(self, pick: int, won: bool) -> None:
        if dispute := self._one(self._objects("dispute", status="needs_response"), pick):
            end = self.world.driver.win_dispute if won else self.world.driver.lose_dispute
            end(dispute["id"])

    @precondition(lambda self: self._objects("subscription"))
    @rule(pick=picks, to_end=st.booleans())
    def cancel_or_resume_in_the_portal(self, pick: int, to_end: bool) -> None:
        if subscription := self._one(self._objects("subscription"), pick):
            word = "true" if to_end else "false"
            path = f"subscriptions/{subscription['id']}"
            self.world.in_dashboard("POST", path, cancel_at_period_end=word)

    @precondition(lambda self: self._objects("subscription"))
    @rule(pick=picks, word=st.sampled_from(["cancel", "resume"]), crash=crashes)
    def cancel_or_resume(self, pick: int, word: str, crash: int | None) -> None:
        monthly = [each for each in self.world.sales.values() if each.is_monthly]
        if sale := self._one(monthly, pick):
            path = f"{self.world.path(sale.pool)}/subscriptions/{sale.purchase_id}/{word}"
            self._arm(crash)
            self.world.survived(self.world.asked("POST", path))

    @precondition(lambda self: self._objects("subscription") and self.subscriptions_deleted < 2)
    @rule(pick=picks)
    def a_subscription_is_deleted(self, pick: int) -> None:
        if subscription := self._one(self._objects("subscription"), pick):
            self.subscriptions_deleted += 1
            self.world.in_dashboard("DELETE", f"subscriptions/{subscription['id']}")

    @precondition(lambda self: self.buys > 3 and self.subscriptions_deleted < 2)
    @rule(pick=picks)
    def a_customer_is_deleted(self, pick: int) -> None:
        if customer := self._one(self._objects("customer"), pick):
            self.subscriptions_deleted += 1
            self.world.in_dashboard("DELETE", f"customers/{customer['id']}")

    @precondition(lambda self: self._objects("invoice", status="open"))
    @rule(pick=picks, how=st.sampled_from(["void", "mark_uncollectible"]))
    def an_invoice_is_given_up(self, pick: int, how: str) -> None:
        if invoice := self._one(self._objects("invoice", status="open"), pick):
            self.world.in_dashboard("POST", f"invoices/{invoice['id']}/{how}")

    @precondition(lambda self: self.buys > 2 and not self.closed)
    @rule()
    def a_group_is_deleted(self) -> None:
        with self.world.api.control.change(ORGANIZATION, SETUP) as change:
            delete_group(change, "group_two")
        self.closed.add(("group", "group_two"))

    @rule(
        group=st.sampled_from(sorted(MEMBERS)),
        website=st.sampled_from([None, "web_one"]),
        credits=st.integers(1, 600),
    )
    def spend(self, group: str, website: str | None, credits: int) -> None:
        now = self.world.clock()
        self.worker.catch_up(self.world.api.store, now)
        if ("group", group) not in self.closed:
            self.worker.spend(group, website, credits, now)

    # Webhooks, and the API that works them off

    @rule(
        order=st.randoms(use_true_random=False),
        lost=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
        late=st.sampled_from([0.0, 0.0, 0.5]),
        twice=st.sampled_from([0.0, 0.3]),
        shuffled=st.booleans(),
        crash=crashes,
    )
    def webhooks_come(self, order, lost, late, twice, shuffled, crash) -> None:  # type: ignore[no-untyped-def]
        """What is late comes with the next ones. A webhook that no API answered comes again."""
        events = [*self.waiting, *self.world.new_events()]
        self.waiting = [each for each in events if order.random() < late]
        kept = [each for each in events if each not in self.waiting and order.random() >= lost]
        kept += [each for each in kept if order.random() < twice]
        if shuffled:
            order.shuffle(kept)
        self._arm(crash)
        for number, event in enumerate(kept):
            if not self.world.survived(self.world.deliver(event)):
                self.waiting += kept[number:]
                break
            if number % 3 == 0 and not self.world.survived(self.world.work_off()):
                self.waiting += kept[number + 1 :]
                break

    @rule(pick=picks, how=st.sampled_from(["secret", "body", "old", "future", "account", "live"]))
    def a_webhook_is_forged(self, pick: int, how: str) -> None:
        """None is kept, so none can be worked off."""
        event = self._one(self.world.objects("event").all("event"), pick)
        if event is None:
            return
        forged = {**event, "id": f"evt_forged_{how}"}
        forged |= {"account": {"account": "acct_other"}, "live": {"livemode": True}}.get(how, {})
        body = json.dumps(forged).encode()
        signed_s = self.world.now_s + {"old": -301, "future": 301}.get(how, 0)
        secret = "whsec_of_somebody_else" if how == "secret" else ""
        signature = self.world.signed(body, secret=secret, at_s=signed_s)
        if how == "body":
            body = body.replace(b'"evt_', b'"evt_x')
        answer = self.world.run(self.world.send(body, signature))
        assert answer.status_code == 400, answer.text

    @rule(crash=crashes)
    def the_api_works(self, crash: int | None) -> None:
        self._arm(crash)
        self.world.survived(self.world.work_off())

    @rule(crash=crashes)
    def renewals_are_placed(self, crash: int | None) -> None:
        self._arm(crash)
        self.world.survived(self.world.renewed())

    @rule(crash=crashes)
    def reconcile(self, crash: int | None) -> None:
        self._arm(crash)
        self.world.survived(self.world.reconciled())

    @rule(kind=st.sampled_from(["error", "lost", "rate_limited"]), times=st.integers(1, 9))
    def stripe_fails(self, kind: str, times: int) -> None:
        """`lost`: it does what was asked, and nobody hears of it."""
        self.world.driver.faults({"kind": kind, "times": times})

    # What must hold

    @rule()
    def check(self) -> None:
        self.everything_fits()

    @invariant()
    def the_worker_takes_every_fact(self) -> None:
        """None is refused, and what lies in the pools is what the control plane wrote."""
        self.step += 1
        self.worker.catch_up(self.world.api.store, self.world.clock())
        books = read_books(self.world.api.store)
        found = pool_differences(books, self.worker, set(POOLS), self.closed)
        assert not found, "\n".join(found)

    def everything_fits(self) -> None:
        world = self.world
        self._arm(None)
        world.note_sales()
        world.converged()
        objects, books = world.objects(), read_books(world.api.store)
        found = differences(books, objects, world.sales, self.closed, world.now_s)
        assert not found, "\n".join(found)
        again = world.run(world.reconciled())
        assert again.differences == [], "a second reconciliation changed something"
        assert read_books(world.api.store) == books

    def _count(self) -> None:
        objects = self.world.objects()
        for kind in objects.by_kind:
            self.seen[kind] += len(objects.all(kind))
        self.seen["paid invoices"] += len(objects.all("invoice", status="paid"))
        self.seen["crashes"] += self.world.crashes.count
        self.seen["purchases"] += len(self.world.sales)

    def _arm(self, crash: int | None) -> None:
        self.world.crashes.life.arm(crash)

    def _objects(self, kind: str, **equal: object) -> list[Thing]:
        """Preconditions ask at each step; between two steps nothing happens."""
        if self.at_step != self.step:
            self.known, self.at_step = self.world.objects(*KINDS, "customer"), self.step
        things = self.known.all(kind, **equal)
        return [each for each in things if not each.get("deleted")]

    @staticmethod
    def _one(things: Sequence[Each], pick: int) -> Each | None:
        return things[pick % len(things)] if things else None
