"""Facts of `credits`, the ledger's postings, and what the clock forfeits."""

from datetime import datetime, timedelta
from typing import Any

from schemas import codec, records
from schemas.records import INT64_MAX
from tests.decisions.tables import table
from tests.decisions.worker import HOUR, ORG, T0, Worker, cloud_event, instant, worker_with_credits


def granted(
    grant_id: str,
    amount: int,
    pool: str = "a",
    kind: str = "one_time",
    expires_at: datetime | None = None,
) -> records.Granted:
    pool_kind: Any = "website" if pool.startswith("web") else "group"
    return records.Granted(grant_id, pool_kind, pool, kind, amount, "admin:x", expires_at)  # type: ignore[arg-type]


def fact_from(text: str) -> Any:
    """`grant g1 100 [pool] [monthly] [until=+1h]`, `revoke g1 50`, `adjust -20 [pool]`."""
    what, *words = text.split()
    until = next((instant(w[6:]) for w in words if w.startswith("until=")), None)
    kind = "monthly" if "monthly" in words else "one_time"
    words = [w for w in words if w != "monthly" and not w.startswith("until=")]
    if what == "grant":
        name = words[0].replace("LONG", "x" * 257)
        pool = words[2] if len(words) > 2 else "a"
        return granted(name, int(words[1]), pool, kind, until)
    if what == "revoke":
        return records.Revoked(words[0], int(words[1]), "refund")
    pool = words[1] if len(words) > 1 else "a"
    return records.Adjusted("website" if "web" in pool else "group", pool, int(words[0]), "")


def legs(postings: list[records.Posting]) -> str:
    return " ".join(f"{p.account}{p.amount_micro:+}" for p in postings)


@table("""
    facts                                              | expected
    grant g 100                                        | applied
    grant g 100 web_3                                  | applied
    grant g 0                                          | invalid_fact
    grant g -1                                         | invalid_fact
    grant LONG 1                                       | invalid_fact
    grant adjustment:9 1                               | invalid_fact
    grant group-deleted:a 1                            | invalid_fact
    grant g 9223372036854775807                        | applied
    grant g 9223372036854775808                        | amount_too_large
    grant g 9223372036854775807; grant h 1             | amount_too_large
    grant g 9223372036854775807; grant h 1 b           | applied
    grant g 1; grant g 1                               | grant_exists
    grant g 1; grant g 1 b                             | grant_exists
    grant g 1 z                                        | unknown_group
    grant g 1 group_unassigned                         | reserved_group
    grant g 1 web_9                                    | unknown_website
    grant g 1 monthly                                  | invalid_fact
    grant g 1 monthly until=+30d                       | applied
    grant g 1 until=0                                  | invalid_fact
    grant g 1 until=+99999d                            | invalid_fact
    grant g 1 until=-1h                                | invalid_fact
    grant g 1 until=+1s                                | applied
    revoke g 1                                         | unknown_grant
    grant g 5; revoke g 0                              | invalid_fact
    grant g 5; revoke g -1                             | invalid_fact
    grant g 5; revoke g 6                              | amount_too_large
    grant g 5; revoke g 3; revoke g 2                  | applied
    grant g 5; revoke g 3; revoke g 3                  | amount_too_large
    adjust 5                                           | applied
    adjust -5                                          | applied
    adjust 0                                           | invalid_fact
    adjust 5 z                                         | unknown_group
    adjust 5 web_9                                     | unknown_website
    adjust 5 group_unassigned                          | reserved_group
    adjust 9223372036854775808                         | amount_too_large
    adjust -9223372036854775808                        | amount_too_large
    adjust -9223372036854775807                        | applied
    adjust -9223372036854775807; adjust -1             | amount_too_large
    adjust 5; revoke adjustment:1 5                    | applied
    adjust 5; revoke adjustment:1 6                    | amount_too_large
""")
def test_the_last_fact(facts: str, expected: str) -> None:
    worker = worker_with_credits()
    for text in facts.split(";"):
        outcome = worker.publish(fact_from(text.strip()))
    assert (outcome.rejected.reason.value if outcome.rejected else "applied") == expected
    assert bool(outcome.postings) == (expected == "applied")


@table(
    """
    facts                                       | moved                               | pool
    grant g 100                                 | available+100 issued-100            | 100 debt 0
    grant g 100; revoke g 30                    | available-30 revoked+30             | 70 debt 0
    adjust 100                                  | available+100 adjusted-100          | 100 debt 0
    adjust -40                                  | debt-40 adjusted+40                 | -40 debt 40
    adjust -40; grant g 100                     | available+60 debt+40 issued-100     | 60 debt 0
    adjust -40; grant g 40                      | debt+40 issued-40                   | 0 debt 0
    adjust -40; grant g 10                      | debt+10 issued-10                   | -30 debt 30
    adjust -40; adjust 50                       | available+10 debt+40 adjusted-50    | 10 debt 0
    adjust -40; grant g 10; revoke g 10         | debt-10 revoked+10                  | -40 debt 40
    grant g 10; grant h 20; revoke g 10         | available-10 revoked+10             | 20 debt 0
    grant g 10; grant h 20; adjust -15          | available-10 available-5 adjusted+15| 15 debt 0
    grant g 10; adjust -15                      | available-10 debt-5 adjusted+15     | -5 debt 5
    grant h 20; grant g 10 until=+1h; adjust -15| available-10 available-5 adjusted+15| 15 debt 0
    grant g 10; adjust -15; revoke g 10         |                                     | -5 debt 5
    grant g 10; adjust -4; revoke g 7           | available-6 revoked+6               | 0 debt 0
"""
)
def test_what_the_last_fact_moves(facts: str, moved: str, pool: str) -> None:
    worker = worker_with_credits()
    for text in facts.split(";"):
        postings = worker.publish(fact_from(text.strip())).postings
    left = worker.pool("group", "a")
    assert legs(postings) == moved
    assert f"{left.balance_micro} debt {left.debt_micro}" == pool
    assert {posting.balance_after_micro for posting in postings} <= {left.balance_micro}


def test_a_posting_names_its_fact() -> None:
    worker = worker_with_credits()
    first, second = worker.publish(granted("g", 100), T0 - HOUR).postings
    assert first == records.Posting(
        organization_id=ORG,
        entry_id="grant:g",
        leg=0,
        kind="grant",
        account="available",
        pool_kind="group",
        pool_id="a",
        grant_id="g",
        amount_micro=100,
        balance_after_micro=100,
        caused_by_topic="credits",
        caused_by_version=1,
        effective_at=T0 - HOUR,
        recorded_at=T0,
    )
    assert (second.entry_id, second.leg, second.account) == ("grant:g", 1, "issued")
    assert worker.publish(records.Revoked("g", 1, "")).postings[0].entry_id == "revoke:2"
    assert worker.publish(records.Adjusted("group", "a", 1, "")).postings[0].entry_id == "adjust:3"


def test_a_fact_of_credits_names_its_pool_in_facts_applied() -> None:
    worker = worker_with_credits()
    grant = worker.publish(granted("g", 100, "web_3")).applied
    revoke = worker.publish(records.Revoked("g", 1, "")).applied
    adjust = worker.publish(records.Adjusted("group", "a", 1, "")).applied
    named = [(f.group_id, f.website_id, f.grant_id) for f in (grant, revoke, adjust) if f]
    assert named == [("", "web_3", "g"), ("", "web_3", "g"), ("a", "", "")]


def test_a_spent_grant_is_revoked_into_debt() -> None:
    worker = worker_with_credits()
    worker.publish(granted("g", 2_000))
    worker.send("evt_1")  # costs 1830
    postings = worker.publish(records.Revoked("g", 2_000, "dispute")).postings
    assert legs(postings) == "available-170 debt-1830 revoked+2000"
    assert worker.pool("group", "a").debt_micro == 1830


def test_debt_that_would_not_fit_is_refused() -> None:
    worker = worker_with_credits()
    worker.publish(granted("g", INT64_MAX))
    worker.send("evt_1")
    worker.publish(records.Adjusted("group", "a", -INT64_MAX, ""), T0 - 48 * HOUR)
    outcome = worker.publish(records.Revoked("g", INT64_MAX, ""))
    assert outcome.rejected is not None
    assert outcome.rejected.reason == "amount_too_large"


def test_a_negative_adjustment_leaves_what_is_not_eligible_at_its_time() -> None:
    worker = worker_with_credits()
    worker.publish(granted("next", 50, kind="monthly", expires_at=T0 + 60 * HOUR), T0 + HOUR)
    assert legs(worker.publish(records.Adjusted("group", "a", -20, "")).postings) == (
        "debt-20 adjusted+20"
    )


class TestForfeits:
    """After the late grace, and only then, by the clock."""

    def expired(self) -> Worker:
        worker = worker_with_credits()
        worker.publish(granted("g", 2_000, expires_at=T0 + HOUR))
        return worker

    def test_a_late_event_still_uses_the_grant_within_the_grace(self) -> None:
        worker = self.expired()
        worker.now = T0 + 24 * HOUR
        assert worker.tick() == []
        row = worker.send("evt_1")
        assert isinstance(row, records.RatedEvent)
        assert row.group_debit_micro == 1830

    def test_usage_after_the_expiry_does_not_use_the_grant_within_the_grace(self) -> None:
        worker = self.expired()
        worker.now = T0 + 24 * HOUR
        too_late = worker.send("evt_2", time=T0 + HOUR)
        assert isinstance(too_late, records.RatedEvent)
        assert too_late.overage_micro == 1830

    def test_what_is_left_after_the_grace_is_forfeited_once(self) -> None:
        worker = self.expired()
        worker.send("evt_1")
        worker.now = T0 + 25 * HOUR
        (out, into) = worker.tick()
        assert legs([out, into]) == "available-170 forfeited+170"
        assert (out.entry_id, out.caused_by_topic, out.caused_by_version) == ("forfeit:g", "", 0)
        assert (out.effective_at, out.recorded_at) == (T0 + HOUR, T0 + 25 * HOUR)
        assert worker.tick() == []

    def test_what_is_spent_or_closed_leaves_no_posting(self) -> None:
        worker = self.expired()
        worker.send("evt_1", data={"quantity": 2_000})
        worker.publish(granted("h", 7, "b", expires_at=T0 + HOUR))
        worker.publish(records.GroupDeleted("b"))
        worker.now = T0 + 25 * HOUR
        assert worker.tick() == []
        assert not [key for key in worker.state.values if key[0] == "expiry"]

    @table("""
        spent | revoked   | moved                       | debt
        0     | 2000      |                             | 0
        1830  | 2000      | debt-1830 revoked+1830      | 1830
        1830  | 170       |                             | 0
        1830  | 171       | debt-1 revoked+1            | 1
        1830  | 100 100   | debt-30 revoked+30          | 30
        2000  | 500       | debt-500 revoked+500        | 500
    """)
    def test_a_forfeited_grant_is_revoked_without_a_debt_of_what_nobody_spent(
        self, spent: str, revoked: str, moved: str, debt: str
    ) -> None:
        """2,000 were granted. What was forfeited covers a refund first: who gets back what was
        not spent owes nothing."""
        worker = self.expired()
        worker.send("evt_1", data={"quantity": int(spent)})
        worker.now = T0 + 25 * HOUR
        worker.tick()
        for amount in revoked.split():
            postings = worker.publish(records.Revoked("g", int(amount), "refund")).postings
        assert legs(postings) == moved
        assert worker.pool("group", "a").debt_micro == int(debt)
        worker.publish(granted("paid", 5_000))
        assert worker.pool("group", "a").balance_micro == 5_000 - int(debt)

    def test_what_falls_due_while_the_clock_waits_is_left_to_the_next_strike(self) -> None:
        worker = self.expired()
        struck_at = T0 + 25 * HOUR - timedelta(seconds=1)
        worker.now = T0 + 30 * HOUR  # a backlog was decided meanwhile, and some of it is not yet
        assert worker.tick(struck_at) == []
        event = codec.encode(cloud_event("evt_1"))
        row = worker.receive(
            event, ORG.encode(), (), appended_at=struck_at + timedelta(seconds=0.5)
        )
        assert isinstance(row, records.RatedEvent)
        assert row.group_debit_micro == 1830
        assert legs(worker.tick(worker.now)) == "available-170 forfeited+170"
        assert {posting.recorded_at for posting in worker.postings[-2:]} == {worker.now}

    def test_an_idle_organization_forfeits_too(self) -> None:
        worker = self.expired()
        worker.now = T0 + 400 * HOUR
        assert legs(worker.tick()) == "available-2000 forfeited+2000"

    def test_the_index_sorts_by_time(self) -> None:
        worker = worker_with_credits()
        for number, hours in enumerate((100, 2, 30)):
            worker.publish(granted(f"g{number}", 1, expires_at=T0 + hours * HOUR))
        keys = sorted(key for key in worker.state.values if key[0] == "expiry")
        assert [key[3] for key in keys] == ["g1", "g2", "g0"]
        assert keys[0][1] == "2026-11-01T14:00:00.000000Z"
