"""Credits that were spent before their payment was taken back, by the worker that charged them."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from api.payments.seen import Seen
from api.rules.change import Control
from api.rules.members import NewMember, create_member
from api.rules.memberships import add_members
from api.rules.prices import NewPrice, set_price
from schemas import codec
from schemas.records import MICRO, RatedEvent
from tests.api.conftest import ADMIN, Clock
from tests.decisions.tables import table
from tests.decisions.worker import Worker, cloud_event
from tests.payments import pictures
from tests.payments.purchases import MONTH, ORGANIZATION, START, look, new_purchase
from tests.payments.written import tell


@dataclass
class Spending:
    """A monthly or one-time purchase, settled by pictures, and what Ann spends meanwhile."""

    control: Control
    clock: Clock
    kind: str
    worker: Worker = field(default_factory=Worker)
    _told: int = 0
    _events: int = 0

    def __post_init__(self) -> None:
        self.key = new_purchase(self.control, self.kind)
        with self.control.change(ORGANIZATION, ADMIN) as change:
            create_member(change, NewMember("ann@example.com", "Ann", member_id="ann"))
            add_members(change, "group_a", ["ann"], "members")
            set_price(change, NewPrice("ai.tokens", MICRO * MICRO, START - MONTH))

    def see(self, text: str) -> None:
        seen: Seen = getattr(pictures, self.kind)(text)
        assert look(self.control, self.key, seen).problems == ()
        self._told = tell(self.worker, self.control, self._told)

    def spend(self, credits: int, at: datetime | None = None) -> int:
        """A second later than the facts of this instant; the overage in credits."""
        self._events += 1
        time = at or self.clock.now + timedelta(seconds=1)
        event = cloud_event(
            f"evt_{self._events}",
            organizationid=ORGANIZATION,
            subject="ann",
            time=time,
            data={"quantity": credits},
        )
        self.worker.now = max(self.worker.now, time)
        row = self.worker.receive(codec.encode(event), ORGANIZATION.encode())
        assert isinstance(row, RatedEvent), row
        return row.overage_micro // MICRO

    def do(self, step: str) -> None:
        """`spend 2`, `+31d`, or a picture."""
        if step.startswith("spend"):
            assert self.spend(int(step.split()[1])) == 0
        elif step.startswith("+"):
            self.clock.forward(days=int(step[1:-1]))
        else:
            self.see(step)

    @property
    def pool(self) -> str:
        pool = self.worker.pool("group", "group_a", ORGANIZATION)
        return f"{pool.balance_micro / MICRO:g} owes {pool.debt_micro / MICRO:g}"


@pytest.fixture
def control(sqlite_control: Control) -> Control:
    return sqlite_control


@table("""
    kind     | steps                                                           | pool
    one_time | paid; spend 2; paid r=3                                         | -2 owes 2
    one_time | paid; spend 2; paid r=1                                         | 0 owes 0
    one_time | paid; spend 2; paid d1=o3; paid d1=w3                           | 1 owes 0
    one_time | paid; spend 2; paid r=2; paid                                   | 1 owes 0
    one_time | paid; spend 3; paid d1=o3; paid r=1 d1=w3                       | -1 owes 1
    monthly  | active@1 1:paid; spend 2; active@1 1:paid d1=o3; active@1 1:paid d1=w3 | 1 owes 0
    monthly  | active@1 1:paid; spend 2; active@1 1:paid r=3                   | -2 owes 2
    monthly  | active@1 1:paid; spend 3; +30d; active@2 1:paid r=3 2:paid      | 0 owes 0
    monthly  | active@1 1:open; +30d; active@2 2:draft; spend 2; active@2 2:void | -2 owes 2
    monthly  | +30d; active@2 2:draft; spend 2; past@2 2:uncollectible; active@2 2:paid | 1 owes 0
    monthly  | +30d; active@2 2:draft; spend 2; active@2 2:paid                | 1 owes 0
    monthly  | +30d; active@2 2:draft; spend 2; active@2 2:open line=il_x      | 1 owes 0
""")
def test_what_was_spent_is_owed_until_it_is_paid(
    kind: str, steps: str, pool: str, control: Control, clock: Clock
) -> None:
    spending = Spending(control, clock, kind)
    for step in steps.split(";"):
        spending.do(step.strip())
    assert spending.pool == pool


def test_a_dispute_won_after_its_month_leaves_neither_debt_nor_credits(
    control: Control, clock: Clock
) -> None:
    """What was spent is paid for after all; the rest is forfeited, as it would have been."""
    spending = Spending(control, clock, "monthly")
    spending.see("active@1 1:paid")
    assert spending.spend(2) == 0
    spending.see("active@1 1:paid d1=o3")
    assert spending.pool == "-2 owes 2"
    clock.now = START + MONTH + timedelta(days=40)
    spending.see("active@2 1:paid d1=w3")
    assert spending.pool == "1 owes 0"
    spending.worker.now = clock.now
    spending.worker.tick()
    assert spending.pool == "0 owes 0"


def test_a_renewal_s_midnight_cuts_nobody_off(control: Control, clock: Clock) -> None:
    """The old month ends in the instant in which the new one begins, paid or not."""
    spending = Spending(control, clock, "monthly")
    midnight = START + MONTH
    spending.see("active@1 1:paid")
    spending.see("active@2 1:paid 2:draft")
    assert spending.spend(2, midnight - timedelta(microseconds=1)) == 0
    assert spending.spend(3, midnight) == 0
    assert spending.spend(1, midnight - timedelta(microseconds=2)) == 0
    assert spending.spend(1, midnight) == 1


def test_a_month_that_is_seen_late_pays_for_late_usage_only(control: Control, clock: Clock) -> None:
    spending = Spending(control, clock, "monthly")
    clock.now = START + MONTH + timedelta(hours=1)
    spending.see("active@1 1:paid")
    assert spending.spend(1, clock.now) == 1
    assert spending.spend(1, START + timedelta(days=20)) == 0
    assert spending.pool == "2 owes 0"
    spending.worker.now = START + MONTH + timedelta(days=1)
    spending.worker.tick()
    assert spending.pool == "0 owes 0"
