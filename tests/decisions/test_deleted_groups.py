"""What becomes of a group's credits when it is deleted, at once or ahead of its time."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import records
from streams.decisions.forfeits import decide_forfeit
from streams.decisions.ledger import Cause, PoolName, closing_entry_id, entry
from streams.decisions.state import MemoryState
from tests.decisions.tables import table
from tests.decisions.test_credits import granted, legs
from tests.decisions.worker import HOUR, ORG, T0, Worker, worker_with_credits


class TestDeletedGroups:
    """What remains in a deleted group's pool is forfeited, what it owes is written off."""

    def test_at_once(self) -> None:
        worker = worker_with_credits()
        worker.publish(granted("g", 10))
        worker.publish(granted("h", 20))
        postings = worker.publish(records.GroupDeleted("a")).postings
        assert legs(postings) == "available-10 forfeited+10 available-20 forfeited+20"
        assert [p.entry_id for p in postings[::2]] == ["group-deleted:a:g", "group-deleted:a:h"]
        assert [p.balance_after_micro for p in postings] == [20, 20, 0, 0]
        assert postings[0].caused_by_topic == "memberships"

    def test_debt_is_written_off(self) -> None:
        worker = worker_with_credits()
        worker.publish(records.Adjusted("group", "a", -30, ""))
        postings = worker.publish(records.GroupDeleted("a")).postings
        assert legs(postings) == "debt+30 uncollected-30"
        assert postings[0].entry_id == "group-debt:a"

    def deleted_in_an_hour(self) -> Worker:
        worker = worker_with_credits()
        worker.publish(granted("g", 5_000))
        assert worker.publish(records.GroupDeleted("a"), T0 + HOUR).postings == []
        return worker

    def test_ahead_of_its_time_the_group_pays_until_then(self) -> None:
        worker = self.deleted_in_an_hour()
        row = worker.send("evt_1")
        assert isinstance(row, records.RatedEvent)
        assert (row.stamped_group_id, row.funding_group_id) == ("a", "a")
        assert row.group_debit_micro == 1830

    def test_ahead_of_its_time_the_clock_forfeits_without_grace_and_once(self) -> None:
        worker = self.deleted_in_an_hour()
        worker.publish(granted("h", 1))
        worker.now = T0 + HOUR
        assert legs(worker.tick()) == "available-5000 forfeited+5000 available-1 forfeited+1"
        assert worker.tick() == []

    def test_after_its_time_the_group_is_stamped_and_pays_nothing(self) -> None:
        worker = self.deleted_in_an_hour()
        worker.now = T0 + HOUR
        worker.tick()
        late = worker.send("evt_2")
        assert isinstance(late, records.RatedEvent)
        assert (late.stamped_group_id, late.funding_group_id) == ("a", "")
        assert late.overage_micro == 1830

    def test_after_its_time_the_group_is_granted_nothing(self) -> None:
        worker = self.deleted_in_an_hour()
        worker.now = T0 + HOUR
        worker.tick()
        grant = worker.publish(granted("i", 1), T0)
        assert grant.rejected is not None
        assert grant.rejected.reason == "group_deleted"

    def test_not_before_its_time(self) -> None:
        worker = worker_with_credits()
        worker.publish(granted("g", 5_000))
        worker.publish(records.GroupDeleted("a"), T0 + HOUR)
        (key,) = [key for key in worker.state.values if key[0] == "expiry"]
        index_entry = worker.state.values[key]
        assert decide_forfeit(key, index_entry, worker.state, T0, T0 + HOUR, timedelta(0)) is None

    def test_a_refund_afterwards_does_not_open_the_pool_again(self) -> None:
        worker = worker_with_credits()
        worker.publish(granted("g", 2_000))
        worker.send("evt_1")  # costs 1830
        worker.publish(records.GroupDeleted("a"))
        outcome = worker.publish(records.Revoked("g", 2_000, "refund"))
        assert legs(outcome.postings) == "uncollected-1830 revoked+1830"
        assert {posting.balance_after_micro for posting in outcome.postings} == {0}
        assert worker.state.get(("pool", ORG, "group", "a")) is None

    def test_nothing_spent_is_nothing_owed(self) -> None:
        worker = worker_with_credits()
        worker.publish(granted("g", 10))
        worker.publish(records.GroupDeleted("a"))
        outcome = worker.publish(records.Revoked("g", 10, "refund"))
        assert (outcome.rejected, outcome.postings) == (None, [])
        assert worker.state.get(("pool", ORG, "group", "a")) is None

    @table("""
        group | grant | entry
        a     | g     | group-deleted:a:g
        a     | b:c   | group-deleted:a:b:c
        a:b   | c     | group-closed:3:a:b:c
        a     | 3:a:b | group-deleted:a:3:a:b
        :     | ::    | group-closed:1:::::
        %3A   | c     | group-deleted:%3A:c
    """)
    def test_entries_of_different_groups_and_grants_differ(
        self, group: str, grant: str, entry: str
    ) -> None:
        """Ids that were unambiguous are as they were, so that a fact that is applied again after
        an upgrade replaces its rows."""
        worker = worker_with_credits()
        worker.publish(records.GroupCreated(group))
        worker.publish(granted(grant, 10, group))
        postings = worker.publish(records.GroupDeleted(group)).postings
        assert {posting.entry_id for posting in postings} == {entry}


PARTS = st.text(":ab1%", min_size=1, max_size=4)


@given(PARTS, PARTS, PARTS, PARTS)
def test_no_two_closings_share_an_entry(one: str, its: str, other: str, others: str) -> None:
    if (one, its) != (other, others):
        assert closing_entry_id(one, its) != closing_entry_id(other, others)


def test_an_entry_that_does_not_sum_to_zero_is_a_bug() -> None:
    cause = Cause(ORG, "credits", 1, T0, T0)
    with pytest.raises(AssertionError, match="sums to zero"):
        entry(cause, "grant:g", "grant", PoolName("group", "a"), [("available", "g", 1)], 1)


def test_a_deletion_of_a_group_that_never_was_is_a_bug() -> None:
    key = ("expiry", "2026-11-01T12:00:00.000000Z", ORG, "group-deleted:a")
    expiry = records.Expiry("group", "a", "")
    with pytest.raises(AssertionError, match="never created"):
        decide_forfeit(key, expiry, MemoryState(), T0, T0, timedelta(days=1))
