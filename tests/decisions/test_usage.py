"""What becomes of an event: who, which group, which price, which grants."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import records
from schemas.codec import StateKey
from schemas.records import INT64_MAX, MICRO, UNASSIGNED
from streams.decisions import known as known_module
from streams.decisions.attribution import Validity, group_of_member
from streams.decisions.outcomes import Rejected
from streams.decisions.rating import cost_micro
from streams.decisions.state import Draft, MemoryState
from streams.decisions.usage import apply_rated
from streams.decisions.waterfall import burn_order, draw, take_from_grant
from tests.decisions.tables import table
from tests.decisions.worker import HOUR, ORG, T0, Worker, instant, worker_with_credits


def rated(worker: Worker, event_id: str = "evt_1", **changes: Any) -> records.RatedEvent:
    row = worker.send(event_id, **changes)
    assert isinstance(row, records.RatedEvent), row
    return row


def refused(worker: Worker, event_id: str = "evt_1", **changes: Any) -> str:
    row = worker.send(event_id, **changes)
    assert isinstance(row, Rejected)
    return row.reason.value


def test_a_row_says_everything() -> None:
    worker = worker_with_credits()
    grant = records.Granted("g", "group", "a", "one_time", 2_000, "admin:x")
    worker.publish(grant, T0 - HOUR)
    worker.now = T0 + HOUR
    row = rated(worker, data={"quantity": 1830, "website_id": "web_3", "dimensions": {"n": 1}})
    assert row == records.RatedEvent(
        organization_id=ORG,
        source="editor/eu-1",
        event_id="evt_1",
        revision=0,
        event_time=T0,
        meter="ai.tokens",
        subject="user_42",
        member_id="user_42",
        resolved_by="member",
        website_id="web_3",
        dimensions={"n": "1"},
        stamped_group_id="a",
        funding_group_id="a",
        membership_version=4,
        settings_version=1,
        price_version=6,
        price_micro=MICRO,
        quantity_micro=1_830_000_000,
        cost_micro=1830,
        website_debit_micro=0,
        group_debit_micro=1830,
        overage_micro=0,
        credit_price_micro=10_000,
        currency="USD",
        allocations=[records.Allocation("group", "g", 1830)],
        website_balance_micro=0,
        group_balance_micro=170,
        input_topic="usage",
        input_partition=3,
        input_offset=0,
        appended_at=T0 + HOUR,
        recorded_at=T0 + HOUR,
    )


def test_duplicates_are_not_charged_and_conflicts_are_refused() -> None:
    worker = worker_with_credits()
    rated(worker)
    assert worker.send() is None
    assert refused(worker, data={"quantity": 1831}) == "conflict"
    assert len(worker.rated) == 1


def test_a_refused_event_is_not_seen_and_can_be_replayed() -> None:
    worker = worker_with_credits()
    assert refused(worker, type="unpriced") == "no_price"
    worker.publish(records.PriceSet("unpriced", MICRO), T0 - HOUR)
    assert rated(worker, type="unpriced").cost_micro == 1830


def test_an_organization_must_be_known() -> None:
    assert refused(Worker()) == "unknown_organization"


def test_a_cost_beyond_int64_is_refused_and_the_largest_is_exact() -> None:
    worker = worker_with_credits()
    worker.publish(records.PriceSet("dear", INT64_MAX), T0 - HOUR)
    one_million = {"quantity": 1_000_000}
    assert rated(worker, "evt_1", type="dear", data=one_million).overage_micro == INT64_MAX
    assert refused(worker, "evt_2", type="dear", data={"quantity": 1_000_001}) == "cost_too_large"


@table("""
    facts                                                          | time | group
    user_42 a -10h                                                 | -11h | group_unassigned
    user_42 a -10h                                                 | -10h | a
    user_42 a -10h; user_42 b -5h                                  | -6h  | a
    user_42 a -10h; user_42 b -5h                                  | -5h  | b
    user_42 b -5h; user_42 a -10h                                  | -6h  | a
    user_42 b -5h; user_42 a -10h                                  | 0    | b
    user_42 a -5h; user_42 b -5h                                   | -5h  | b
    user_42 b -5h; user_42 a -5h                                   | -5h  | a
    user_42 a -10h; removed -5h                                    | -6h  | a
    user_42 a -10h; removed -5h                                    | -5h  | group_unassigned
    user_42 a -10h; deleted -5h                                    | -6h  | a
    user_42 a -10h; deleted -5h                                    | -5h  | group_unassigned
    user_42 a -10h; deleted -5h; user_42 b -4h                     | 0    | b
    user_42 group_unassigned -10h                                  | 0    | group_unassigned
    nobody a -10h                                                  | 0    | group_unassigned
""")
def test_the_stamp_is_as_of_the_events_time(facts: str, time: str, group: str) -> None:
    worker = Worker(now=T0 - 24 * HOUR)
    for first in (
        records.OrganizationCreated(),
        records.GroupCreated("a"),
        records.GroupCreated("b"),
        records.PriceSet("ai.tokens", MICRO),
    ):
        worker.publish(first)
    worker.now = T0
    for text in facts.split(";"):
        what, *group_id, at = text.split()
        fact: Any = records.MemberAssigned(what, group_id[0] if group_id else "", "api")
        if what == "removed":
            fact = records.MemberRemoved("user_42")
        if what == "deleted":
            fact = records.GroupDeleted("a")
        assert worker.publish(fact, instant(at)).applied is not None
    assert rated(worker, time=instant(time)).stamped_group_id == group
    assert rated(worker, "again", time=instant(time)).stamped_group_id == group


def test_what_is_kept_ready_gives_way_to_new_facts_and_other_times() -> None:
    """The same question before and after each fact, in and out of the span of an answer."""
    worker = worker_with_credits()
    times = [T0 - 3 * HOUR, T0, T0 - 2 * HOUR, T0]

    def groups(round_number: int) -> list[str]:
        return [
            rated(worker, f"evt_{round_number}_{n}", time=at).stamped_group_id
            for n, at in enumerate(times)
        ]

    assert groups(1) == ["a"] * 4
    worker.publish(records.MemberAssigned("user_42", "b", "api"), T0 - 2 * HOUR)
    assert groups(2) == ["a", "b", "b", "b"]
    worker.publish(records.GroupDeleted("b"), T0 - HOUR)
    assert groups(3) == ["a", UNASSIGNED, "b", UNASSIGNED]


def test_what_is_kept_ready_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_module, "ANSWERS_LIMIT", 10)
    worker = worker_with_credits()
    for number in range(40):
        row = rated(worker, f"evt_{number}", subject=f"m{number}", data={"quantity": 1})
        assert row.resolved_by == "unknown"
    kept = worker.context.known[ORG]
    assert len(kept.stamps) + len(kept.terms) + len(kept.sites) <= 10


class TestFunding:
    """Website pool, then group pool; partial cover splits; the rest is overage."""

    def worker(self, web: int, group: int, other: int = 0) -> Worker:
        worker = worker_with_credits()
        pools: list[Any] = [("website", "web_3", web), ("group", "a", group), ("group", "b", other)]
        for kind, pool, amount in pools:
            if amount:
                grant = records.Granted(f"g_{pool}", kind, pool, "one_time", amount, "x")
                worker.publish(grant, T0 - HOUR)
        return worker

    @pytest.mark.parametrize(
        ("web", "group", "website", "expected"),
        [
            (5_000, 5_000, "web_3", (1830, 0, 0)),
            (1_830, 5_000, "web_3", (1830, 0, 0)),
            (1_000, 5_000, "web_3", (1000, 830, 0)),
            (1_000, 500, "web_3", (1000, 500, 330)),
            (0, 500, "web_3", (0, 500, 1330)),
            (5_000, 5_000, "", (0, 1830, 0)),
            (5_000, 0, "web_9", (0, 0, 1830)),
            (0, 0, "", (0, 0, 1830)),
        ],
    )
    def test_split(self, web: int, group: int, website: str, expected: tuple[int, ...]) -> None:
        worker = self.worker(web, group)
        row = rated(worker, data={"quantity": 1830, "website_id": website})
        assert (row.website_debit_micro, row.group_debit_micro, row.overage_micro) == expected
        if website == "web_3":
            assert row.website_balance_micro == worker.pool("website", "web_3").balance_micro
        assert row.group_balance_micro == worker.pool("group", "a").balance_micro
        assert row.group_balance_micro == group - expected[1]

    def test_the_websites_group_pays_where_the_organization_chose_so(self) -> None:
        worker = self.worker(0, 5_000, 5_000)
        worker.publish(records.OrganizationSettings(funding_group="website"), T0 - HOUR)
        with_website = {"quantity": 1, "website_id": "web_3"}
        assert rated(worker, "1", data=with_website).funding_group_id == "b"
        assert rated(worker, "2", data={"quantity": 1}).funding_group_id == "a"
        unknown = {"quantity": 1, "website_id": "web_9"}
        assert rated(worker, "3", data=unknown).funding_group_id == ""

    def test_who_pays_is_chosen_as_of_the_events_time(self) -> None:
        worker = self.worker(0, 5_000, 5_000)
        worker.publish(records.OrganizationSettings(funding_group="website"), T0 - HOUR)
        with_website = {"quantity": 1, "website_id": "web_3"}
        before = rated(worker, "4", data=with_website, time=T0 - 2 * HOUR)
        assert before.funding_group_id == "a"
        assert before.settings_version == 1

    def test_a_websites_group_pays_until_it_is_deleted(self) -> None:
        worker = self.worker(0, 5_000, 5_000)
        worker.publish(records.OrganizationSettings(funding_group="website"), T0 - HOUR)
        with_website = {"quantity": 1, "website_id": "web_3"}
        worker.publish(records.GroupDeleted("b"), T0 + HOUR)
        assert rated(worker, "5", data=with_website).funding_group_id == "b"
        worker.now = T0 + HOUR
        worker.tick()
        closed = rated(worker, "6", data=with_website)
        assert (closed.funding_group_id, closed.group_debit_micro) == ("", 0)

    def test_late_usage_of_a_deleted_group_keeps_its_stamp_and_has_no_pool(self) -> None:
        worker = self.worker(0, 5_000)
        worker.publish(records.GroupDeleted("a"), T0 - HOUR)
        row = rated(worker, time=T0 - 2 * HOUR)
        assert (row.stamped_group_id, row.funding_group_id) == ("a", "")
        assert row.overage_micro == 1830

    def test_nothing_costs_nothing(self) -> None:
        row = rated(self.worker(5, 5), data={"quantity": 0, "website_id": "web_3"})
        assert (row.cost_micro, row.allocations, row.overage_micro) == (0, [], 0)
        assert (row.website_balance_micro, row.group_balance_micro) == (5, 5)

    def test_usage_before_the_first_settings_has_the_first_ones(self) -> None:
        worker = Worker()
        worker.publish(records.OrganizationCreated(currency="EUR"))
        worker.publish(records.PriceSet("ai.tokens", MICRO), T0 - HOUR)
        worker.publish(records.OrganizationSettings(currency="GBP"), T0 + HOUR)
        assert rated(worker, time=T0 - HOUR).currency == "EUR"


@table("""
    prices                               | time | expected
    own 5 -5h                            | 0    | 5
    default 5 -5h                        | 0    | 5
    default 5 -5h; own 7 -3h             | 0    | 7
    default 5 -5h; own 7 -3h             | -4h  | 5
    default 5 -5h; own 7 -3h; default 9 0| 0    | 7
    own 7 -3h; own 8 -3h                 | 0    | 8
    own 7 -3h; own 8 -2h; own 9 -4h      | -3h  | 7
    own 0 -3h                            | 0    | 0
    own 7 +1s                            | 0    | no_price
""")
def test_the_price_is_as_of_the_events_time(prices: str, time: str, expected: str) -> None:
    worker = worker_with_credits()
    for text in prices.split(";"):
        book, price, at = text.split()
        chosen: Any = "default" if book == "default" else "organization"
        worker.publish(records.PriceSet("m", int(price) * MICRO, chosen), instant(at))
    row = worker.send(type="m", time=instant(time), data={"quantity": 1})
    actual = row.reason.value if isinstance(row, Rejected) else row and str(row.cost_micro)
    assert actual == expected


@pytest.mark.parametrize(
    ("quantity_micro", "price", "expected"),
    [(1, 499_999_999_999, 0), (1, 500_000_000_000, 1), (3, 500_000_000_000, 2), (0, 10**18, 0)],
)
def test_half_a_micro_credit_is_rounded_up(quantity_micro: int, price: int, expected: int) -> None:
    assert cost_micro(quantity_micro, price) == expected


@table("""
    grants                                                       | expected
    one_time:x: monthly:y:+9h                                    | y x
    monthly:x:+9h monthly:y:+3h                                  | y x
    one_time:x: one_time:y:+3h                                   | y x
    one_time:x::-1h one_time:y::-2h                              | y x
    one_time:b: one_time:a:                                      | a b
    one_time:o: monthly:m2:+2h one_time:e:+1h monthly:m1:+1h     | m1 m2 e o
""")
def test_burn_order(grants: str, expected: str) -> None:
    pool = []
    for text in grants.split():
        kind, grant_id, expires, *since = text.split(":")
        chosen: Any = kind
        effective_at = instant(since[0]) if since else T0
        expires_at = instant(expires) if expires else None
        pool.append(records.Grant(grant_id, chosen, 1, effective_at, expires_at, 1))
    assert [grant.grant_id for grant in sorted(pool, key=burn_order)] == expected.split()


MOMENTS = st.integers(-3, 3).map(lambda hours: T0 + hours * HOUR)


@st.composite
def pools(drawn: st.DrawFn) -> records.Pool:
    grants = []
    for number in range(drawn(st.integers(0, 5))):
        begins: datetime = drawn(MOMENTS)
        life = drawn(st.one_of(st.none(), st.integers(1, 4)))
        ends = None if life is None else begins + life * HOUR
        kind: Any = "one_time" if ends is None else drawn(st.sampled_from(["monthly", "one_time"]))
        remaining = drawn(st.integers(1, 100))
        grants.append(records.Grant(f"g{number}", kind, remaining, begins, ends, 1))
    grants.sort(key=burn_order)
    debt = drawn(st.integers(0, 10))
    return records.Pool(grants, debt, sum(g.remaining_micro for g in grants) - debt)


@given(pools(), st.integers(0, 400), MOMENTS)
def test_a_draw_takes_what_is_eligible_in_order_and_no_more(
    pool: records.Pool, amount: int, at: datetime
) -> None:
    before = msgspec.json.encode(pool)
    allocations: list[records.Allocation] = []
    covered = draw(pool, "group", amount, at, allocations)
    assert msgspec.json.encode(pool) == before
    eligible = [
        g for g in pool.grants
        if g.effective_at <= at and (g.expires_at is None or at < g.expires_at)
    ]  # fmt: skip
    assert covered == min(amount, sum(g.remaining_micro for g in eligible))
    assert covered == sum(a.amount_micro for a in allocations)
    assert [a.grant_id for a in allocations] == [g.grant_id for g in eligible][: len(allocations)]
    for allocation, grant in zip(allocations[:-1], eligible, strict=False):
        assert allocation.amount_micro == grant.remaining_micro
    balance = pool.balance_micro
    for allocation in allocations:
        assert allocation.amount_micro > 0
        take_from_grant(pool, allocation.grant_id, allocation.amount_micro)
    assert pool.balance_micro == balance - covered
    assert pool.balance_micro == sum(g.remaining_micro for g in pool.grants) - pool.debt_micro
    assert all(g.remaining_micro > 0 for g in pool.grants)


class TestBugsAreLoud:
    """What can only be a bug raises, and the runtime makes an internal_error of it."""

    def test_taking_from_a_grant_that_is_not_there(self) -> None:
        with pytest.raises(AssertionError, match="not in its pool"):
            take_from_grant(records.Pool(), "g", 1)

    def test_taking_more_than_there_is(self) -> None:
        grant = records.Grant("g", "one_time", 1, T0, None, 1)
        with pytest.raises(AssertionError, match="negative"):
            take_from_grant(records.Pool([grant], 0, 1), "g", 2)

    def test_a_member_of_a_group_that_never_was(self) -> None:
        member = records.Timeline([records.Span(T0, 1, "ghost")])
        state = MemoryState({("member", ORG, "m"): member})
        with pytest.raises(AssertionError, match="never created"):
            group_of_member(ORG, "m", state, Validity(T0))

    def test_a_debit_without_a_pool(self) -> None:
        worker = worker_with_credits()
        worker.publish(records.Granted("g", "group", "a", "one_time", 5_000, "x"), T0 - HOUR)
        row = rated(worker)
        with pytest.raises(AssertionError, match="has its pool"):
            apply_rated(row, MemoryState())


def test_a_draft_reads_through_and_writes_nowhere() -> None:
    key: StateKey = ("group", ORG, "a")
    group = records.Group(T0)
    state = MemoryState({key: group})
    draft = Draft(state)
    assert draft.get(key) is group
    draft.delete(key)
    assert draft.get(key) is None
    assert state.get(key) is group


def test_grants_of_the_future_wait() -> None:
    worker = worker_with_credits()
    ends = T0 + timedelta(days=31)
    worker.publish(records.Granted("g", "group", "a", "monthly", 5_000, "x", ends), T0 + HOUR)
    row = rated(worker)
    assert (row.overage_micro, row.group_balance_micro) == (1830, 5_000)
    worker.now = T0 + HOUR
    assert rated(worker, "evt_2", time=T0 + HOUR).group_debit_micro == 1830
