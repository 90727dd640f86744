"""The decisions against the independent model: any sequence of records gives the same answers.

Hypothesis writes the topics, badly as often as well, and shrinks what differs. After every step
the ledger's rules hold as well: entries sum to zero, balances are what the postings say.
"""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cli.verification.model import DeadLetter, Duplicate, Model, Rated
from schemas import codec, records
from schemas.topics import CREDITS, MEMBERSHIPS
from streams.decisions.outcomes import Rejected
from streams.decisions.waterfall import burn_order
from tests.decisions.worker import HOUR, T0, Worker, alias_hash, cloud_event

ORGANIZATIONS = st.sampled_from(["org_7", "org_7", "org_7", "org_8"])
GROUPS = st.sampled_from(["a", "b", "c", records.UNASSIGNED])
MEMBERS = st.sampled_from(["m1", "m2", "m3", "x@y"])
WEBSITES = st.sampled_from(["w1", "w2"])
METERS = st.sampled_from(["tokens", "minutes"])
ALIASES = st.sampled_from(["x@y", "One@Example.com"])
GRANTS = st.sampled_from([f"grant_{n}" for n in range(6)] + ["adjustment:1", "adjustment:3"])
AMOUNTS = st.one_of(
    st.integers(1, 100), st.sampled_from([0, -5, records.INT64_MAX, records.INT64_MAX + 1])
)
HOURS = st.one_of(st.integers(-30, 5), st.just(0), st.sampled_from([24, 48]))
POOLS: st.SearchStrategy[tuple[Any, str]] = st.one_of(
    st.tuples(st.just("group"), GROUPS), st.tuples(st.just("website"), WEBSITES)
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "funding_group": st.sampled_from(["member", "website"]),
        "currency": st.sampled_from(["USD", "EUR", "usd"]),
        "credit_price_micro": st.sampled_from([1, 20_000, -1]),
        "time_zone": st.sampled_from(["Europe/Berlin", "Mars/Phobos"]),
        "billing_anchor_day": st.sampled_from([1, 31, 32]),
    },
)


def membership_facts() -> st.SearchStrategy[Any]:
    build = st.builds
    return st.one_of(
        build(lambda s: records.OrganizationSettings(**s), SETTINGS),
        build(lambda s: records.OrganizationCreated(**s), SETTINGS),
        build(records.GroupCreated, GROUPS),
        build(records.GroupCreated, GROUPS),
        build(records.GroupRenamed, GROUPS),
        build(records.GroupDeleted, GROUPS),
        build(records.MemberAssigned, MEMBERS, GROUPS, st.just("api")),
        build(records.MemberAssigned, MEMBERS, GROUPS, st.just("scim")),
        build(records.MemberRemoved, MEMBERS),
        build(records.MemberAlias, MEMBERS, ALIASES.map(alias_hash), st.booleans()),
        build(records.WebsiteAssigned, WEBSITES, GROUPS),
        build(
            records.PriceSet,
            METERS,
            st.sampled_from([0, 1, 500_000, 3_000_000, 2**62, 2**63]),
            st.sampled_from(["organization", "default"]),
        ),
    )


@st.composite
def credit_facts(draw: st.DrawFn) -> Any:
    kind, pool_id = draw(POOLS)
    amount = draw(AMOUNTS)
    what = draw(st.sampled_from(["grant", "grant", "grant", "revoke", "adjust"]))
    if what == "revoke":
        return records.Revoked(draw(GRANTS), amount, "refund")
    if what == "adjust":
        sign = draw(st.sampled_from([1, -1]))
        return records.Adjusted(kind, pool_id, sign * amount, "")
    hours = draw(st.sampled_from([None, -40, 1, 3, 30]))
    return records.Granted(
        draw(GRANTS),
        kind,
        pool_id,
        draw(st.sampled_from(["monthly", "one_time"])),
        amount,
        "admin:x",
        None if hours is None else T0 + hours * HOUR,
    )


class AgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.worker = Worker()
        self.model = Model(alias_hash)
        self.published: dict[tuple[str, str], list[Any]] = defaultdict(list)
        self.events: list[bytes] = []
        self.postings: list[Any] = []

    @initialize()
    def an_organization_with_groups(self) -> None:
        for fact in (
            records.OrganizationCreated(),
            records.GroupCreated("a"),
            records.GroupCreated("b"),
            records.MemberAssigned("m1", "a", "api"),
            records.MemberAlias("m1", alias_hash("x@y")),
            records.WebsiteAssigned("w1", "b"),
            records.PriceSet("tokens", records.MICRO),
        ):
            self.publish("org_7", fact, T0 - 24 * HOUR)
        for kind, pool_id in (("group", "a"), ("website", "w1")):
            grant = records.Granted(f"first_{pool_id}", kind, pool_id, "one_time", 50, "x")  # type: ignore[arg-type]
            self.publish("org_7", grant, T0 - 24 * HOUR)

    @rule(org=ORGANIZATIONS, fact=membership_facts(), hours=HOURS)
    def memberships(self, org: str, fact: Any, hours: int) -> None:
        self.publish(org, fact, self.worker.now + hours * HOUR)

    @rule(org=ORGANIZATIONS, fact=credit_facts(), hours=HOURS)
    def credits(self, org: str, fact: Any, hours: int) -> None:
        self.publish(org, fact, self.worker.now + hours * HOUR)

    @rule(
        org=ORGANIZATIONS,
        fact=st.one_of(membership_facts(), credit_facts()),
        version=st.integers(0, 12),
    )
    def another_version(self, org: str, fact: Any, version: int) -> None:
        self.publish(org, fact, self.worker.now, version)

    @rule(org=ORGANIZATIONS, topic=st.sampled_from([MEMBERSHIPS, CREDITS]), data=st.data())
    def publish_again(self, org: str, topic: str, data: st.DataObject) -> None:
        published = self.published[org, topic]
        if published:
            record = data.draw(st.sampled_from(published))
            again = msgspec.structs.replace(record, recorded_at=self.worker.now)
            self.receive_fact(topic, again)

    @rule(
        org=ORGANIZATIONS,
        subject=st.one_of(MEMBERS, ALIASES, ALIASES.map(str.upper)),
        meter=METERS,
        website=st.one_of(st.just(""), WEBSITES),
        quantity=st.one_of(st.integers(0, 120), st.sampled_from(["0.5", "2.000001", "-1", 1.5])),
        minutes=st.one_of(st.integers(-1800, 5), st.just(6), st.none()),
        data=st.data(),
    )
    def usage(
        self,
        org: str,
        subject: str,
        meter: str,
        website: str,
        quantity: Any,
        minutes: int | None,
        data: st.DataObject,
    ) -> None:
        number = data.draw(st.integers(len(self.events), len(self.events) + 2))
        at = None if minutes is None else self.worker.now + timedelta(minutes=minutes)
        value = codec.encode(
            cloud_event(
                f"evt_{number}",
                organizationid=org,
                subject=subject,
                type=meter,
                time=at,
                data={"quantity": quantity, "website_id": website},
            )
        )
        self.events.append(value)
        self.receive(value, org.encode())

    @rule(data=st.data())
    def usage_again(self, data: st.DataObject) -> None:
        if self.events:
            self.receive(data.draw(st.sampled_from(self.events)), None)

    @rule(hours=st.sampled_from([0, 1, 5, 24]))
    def time_passes(self, hours: int) -> None:
        self.worker.now += hours * HOUR
        expected = self.model.tick(self.worker.now)
        actual = self.worker.tick()
        assert sorted(map(leg, actual)) == sorted(map(leg_of_model, expected))

    @invariant()
    def balances_are_what_was_moved(self) -> None:
        pools = {
            key[1:]: pool for key, pool in self.worker.state.values.items() if key[0] == "pool"
        }
        expected = self.model.balances()
        assert expected == self.model.recomputed_balances()
        assert {name: pool.balance_micro for name, pool in pools.items() if pool.balance_micro} == {
            name: balance for name, balance in expected.items() if balance
        }
        for pool in pools.values():
            left = [grant.remaining_micro for grant in pool.grants]
            assert all(0 < each <= records.INT64_MAX for each in left)
            assert 0 <= pool.debt_micro <= records.INT64_MAX
            assert pool.balance_micro == sum(left) - pool.debt_micro
            assert pool.grants == sorted(pool.grants, key=burn_order)

    @invariant()
    def entries_sum_to_zero(self) -> None:
        sums: dict[tuple[str, str], int] = defaultdict(int)
        for posting in self.worker.postings:
            sums[posting.organization_id, posting.entry_id] += posting.amount_micro
        assert not any(sums.values())

    def publish(self, org: str, fact: Any, at: datetime, version: int | None = None) -> None:
        credit = isinstance(fact, records.CreditFact)
        topic = CREDITS if credit else MEMBERSHIPS
        if version is None:
            known = self.worker.state.get(("organization", org))
            consumed = 0
            if known is not None:
                consumed = known.credits_version if credit else known.memberships_version
            version = consumed + 1
            if version == 1 and not credit:
                fact = records.OrganizationCreated()
        kind = records.CreditRecord if credit else records.MembershipRecord
        self.receive_fact(topic, kind(org, version, self.worker.now, at, fact))

    def receive_fact(self, topic: str, record: Any) -> None:
        value, key = codec.encode(record), record.organization_id.encode()
        actual = self.worker.receive_fact(topic, value, key)
        expected = self.model.fact(topic, value, key, self.worker.now)
        if isinstance(expected, DeadLetter):
            assert actual.rejected is not None, expected
            assert actual.rejected.reason == expected.reason, actual.rejected
            assert actual.applied is None
            assert not actual.postings
            return
        assert actual.rejected is None
        assert actual.ignored == expected.repeated
        assert (actual.applied is None) == expected.repeated
        assert [leg(p) for p in actual.postings] == [leg_of_model(m) for m in expected.postings]
        if actual.applied is not None:
            self.published[record.organization_id, topic].append(record)

    def receive(self, value: bytes, key: bytes | None) -> None:
        actual = self.worker.receive(value, key)
        expected = self.model.usage(value, key, [], self.worker.now)
        if isinstance(expected, Duplicate):
            assert actual is None
        elif isinstance(expected, DeadLetter):
            assert isinstance(actual, Rejected)
            assert actual.reason == expected.reason, actual
        else:
            assert isinstance(actual, records.RatedEvent), actual
            assert row(actual, expected) == expected.row
            paid = actual.website_debit_micro + actual.group_debit_micro
            assert actual.cost_micro == paid + actual.overage_micro


def row(actual: records.RatedEvent, expected: Rated) -> dict[str, Any]:
    """The fields that the model speaks of."""
    fields = msgspec.structs.asdict(actual)
    fields["allocations"] = [(a.pool, a.grant_id, a.amount_micro) for a in actual.allocations]
    return {name: fields[name] for name in expected.row}


def leg(posting: records.Posting) -> tuple[Any, ...]:
    return (
        posting.entry_id,
        posting.account,
        posting.pool_kind,
        posting.pool_id,
        posting.grant_id,
        posting.amount_micro,
    )


def leg_of_model(movement: Any) -> tuple[Any, ...]:
    return (
        movement.entry_id,
        movement.account,
        *movement.pool,
        movement.grant_id,
        movement.amount_micro,
    )


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
