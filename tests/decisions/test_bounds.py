"""No number of facts makes a value of the state larger than its topic takes: the one beyond the
bound is refused, for its own content, and what comes after it goes on."""

from collections.abc import Callable, Iterator
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.verification import fact_rules
from cli.verification.model import DeadLetter, Model
from schemas import codec, records
from schemas.bounds import CHANGES_MAX, LISTED_ID_BYTES_MAX, POOL_GRANTS_MAX, REMOVALS_SPARE
from schemas.codec import StateKey
from schemas.topics import CREDITS, MEMBERSHIPS
from streams.decisions import credit_facts, membership_facts
from streams.decisions.facts import FactOutcome
from streams.decisions.state import (
    alias_key,
    member_key,
    organization_key,
    pool_key,
    price_key,
    website_key,
)
from tests.decisions.test_against_model import AgainstModel
from tests.decisions.worker import (
    HOUR,
    ORG,
    T0,
    Worker,
    alias_hash,
    cloud_event,
    worker_with_credits,
)

ADA = alias_hash("ada@example.com")
GRANTED = records.Granted("one_more", "group", "a", "one_time", 7, "admin:x")


def reason_of(outcome: FactOutcome) -> str:
    return outcome.rejected.reason.value if outcome.rejected else "applied"


def spans(number: int, value: str) -> list[records.Span]:
    return [records.Span(T0 - 20 * HOUR, version, value) for version in range(number)]


@pytest.fixture
def worker() -> Worker:
    return worker_with_credits()


def fill_pool(worker: Worker, number: int, debt_micro: int = 0) -> None:
    """A pool with so many grants of 1 micro-credit."""
    grants = [
        records.Grant(f"g{each:05}", "one_time", 1, T0 - HOUR, None, each) for each in range(number)
    ]
    pool = records.Pool(grants, debt_micro, number - debt_micro)
    worker.state.put(pool_key(ORG, "group", "a"), pool)
    for grant in grants:
        issued = records.IssuedGrant("group", "a", 1)
        worker.state.put(("grant", ORG, grant.grant_id), issued)


def test_a_pool_takes_no_more_grants_than_its_bound(worker: Worker) -> None:
    fill_pool(worker, POOL_GRANTS_MAX - 1)
    assert reason_of(worker.publish(GRANTED)) == "applied"
    refused = worker.publish(records.Granted("another", "group", "a", "one_time", 7, "admin:x"))
    assert reason_of(refused) == "too_many_grants"
    assert not refused.postings
    assert reason_of(worker.publish(records.Adjusted("group", "a", 5, ""))) == "too_many_grants"
    assert worker.state.get(("grant", ORG, "another")) is None
    # Both have consumed their versions, and every other change is as before.
    assert reason_of(worker.publish(records.Adjusted("group", "b", 5, ""))) == "applied"
    assert reason_of(worker.publish(records.Revoked("g00007", 1, "refund"))) == "applied"
    assert reason_of(worker.publish(records.Adjusted("group", "a", 5, ""))) == "applied"


def test_a_grant_of_which_a_debt_leaves_nothing_needs_no_place(worker: Worker) -> None:
    fill_pool(worker, POOL_GRANTS_MAX, debt_micro=10)
    assert reason_of(worker.publish(GRANTED)) == "applied"
    assert worker.pool("group", "a").debt_micro == 3
    assert reason_of(worker.publish(records.Adjusted("group", "a", 4, ""))) == "too_many_grants"
    assert worker.pool("group", "a").debt_micro == 3


def test_an_amount_too_large_is_named_before_too_many_grants(worker: Worker) -> None:
    fill_pool(worker, POOL_GRANTS_MAX)
    adjusted = records.Adjusted("group", "a", records.INT64_MAX, "")
    assert reason_of(worker.publish(adjusted)) == "amount_too_large"


ALMOST: Final = CHANGES_MAX - 1
SUBJECTS: Final[dict[str, tuple[StateKey, Callable[[], Any], Any]]] = {
    "member": (
        member_key(ORG, "user_42"),
        lambda: records.Timeline(spans(ALMOST, "a")),
        records.MemberAssigned("user_42", "b", "api"),
    ),
    "website": (
        website_key(ORG, "web_3"),
        lambda: records.Timeline(spans(ALMOST, "a")),
        records.WebsiteAssigned("web_3", "b"),
    ),
    "alias": (
        alias_key(ORG, ADA),
        lambda: records.Timeline(spans(ALMOST, "")),
        records.MemberAlias("user_42", ADA),
    ),
    "own price": (
        price_key(ORG, "ai.tokens"),
        lambda: records.Prices(organization=[records.Price(T0, 1, 1)] * ALMOST),
        records.PriceSet("ai.tokens", 5),
    ),
    "default price": (
        price_key(ORG, "ai.tokens"),
        lambda: records.Prices(default=[records.Price(T0, 1, 1)] * ALMOST),
        records.PriceSet("ai.tokens", 5, "default"),
    ),
    "settings": (
        organization_key(ORG),
        lambda: records.Organization(
            [records.SettingsSpan(T0, 1, records.OrganizationSettings())] * ALMOST, 6
        ),
        records.OrganizationSettings(currency="EUR"),
    ),
}
"""Where each subject stands in the state, its value one change before the bound, and a change."""


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_changed_too_often_changes_no_more(worker: Worker, subject: str) -> None:
    key, almost_full, fact = SUBJECTS[subject]
    worker.state.put(key, almost_full())
    assert reason_of(worker.publish(fact)) == "applied"
    refused = worker.publish(fact)
    assert reason_of(refused) == "too_many_changes"
    assert refused.rejected is not None
    assert f"has changed {CHANGES_MAX} times" in refused.rejected.detail
    # It has consumed its version and changed nothing else.
    assert set(refused.changes) == {organization_key(ORG), ("fact", ORG, MEMBERSHIPS, "8")}
    assert reason_of(worker.publish(records.GroupCreated("c"))) == "applied"


def test_each_book_of_a_meter_has_its_own_bound(worker: Worker) -> None:
    key, almost_full, own = SUBJECTS["own price"]
    worker.state.put(key, almost_full())
    assert reason_of(worker.publish(own)) == "applied"
    assert reason_of(worker.publish(records.PriceSet("ai.tokens", 5, "default"))) == "applied"


def test_whoever_changed_too_often_can_still_leave(worker: Worker) -> None:
    at_member, at_alias = member_key(ORG, "user_42"), alias_key(ORG, ADA)
    worker.state.put(at_member, records.Timeline(spans(CHANGES_MAX, "a")))
    worker.state.put(at_alias, records.Timeline(spans(CHANGES_MAX, "user_42")))
    removed = records.MemberRemoved("user_42")
    no_alias = records.MemberAlias("user_42", ADA, removed=True)
    assert reason_of(worker.publish(no_alias)) == "applied"
    assert reason_of(worker.publish(records.MemberAlias("user_42", ADA))) == "too_many_changes"
    for _ in range(REMOVALS_SPARE):
        assert reason_of(worker.publish(removed)) == "applied"
    assert reason_of(worker.publish(removed)) == "too_many_changes"
    timeline = worker.state.get(at_member)
    assert timeline is not None
    assert len(timeline.spans) == CHANGES_MAX + REMOVALS_SPARE


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("g" * LISTED_ID_BYTES_MAX, "applied"),
        ("\N{GREEK SMALL LETTER OMEGA}" * (LISTED_ID_BYTES_MAX // 2), "applied"),
        ("\N{GREEK SMALL LETTER OMEGA}" * (LISTED_ID_BYTES_MAX // 2) + "g", "invalid_fact"),
        ("\x01" * (LISTED_ID_BYTES_MAX // 6), "applied"),
        ("\x01" * (LISTED_ID_BYTES_MAX // 6 + 1), "invalid_fact"),
        ('"' * (LISTED_ID_BYTES_MAX // 2 + 1), "invalid_fact"),
    ],
    ids=["ascii", "greek", "greek-longer", "control", "control-longer", "quotes"],
)
def test_ids_that_values_list_are_bounded_in_bytes(identifier: str, expected: str) -> None:
    worker, model = Worker(now=T0), Model(alias_hash)
    facts: list[Any] = [
        records.OrganizationCreated(),
        records.GroupCreated("a"),
        records.GroupCreated(identifier),
        records.MemberAssigned(identifier, "a", "api"),
        # What no value lists may be as long as any id.
        records.WebsiteAssigned("\N{GREEK SMALL LETTER OMEGA}" * 256, "a"),
        records.Granted(identifier, "group", "a", "one_time", 5, "admin:x"),
    ]
    for fact in facts:
        is_listed = identifier in (getattr(fact, name, "") for name in fact.__struct_fields__)
        outcome = worker.publish(fact)
        assert reason_of(outcome) == (expected if is_listed else "applied")
        is_credit = isinstance(fact, records.Granted)
        topic = CREDITS if is_credit else MEMBERSHIPS
        kind = records.CreditRecord if is_credit else records.MembershipRecord
        record = kind(ORG, worker.versions[ORG, topic], T0, T0, fact)
        due = model.fact(topic, codec.encode(record), ORG.encode(), T0)
        assert isinstance(due, DeadLetter) == (outcome.rejected is not None)


FEW_GRANTS, FEW_CHANGES = 3, 3
CHANGES: Final[list[Any]] = [
    *(records.MemberAssigned("m1", group, "api") for group in ("a", records.UNASSIGNED)),
    records.MemberRemoved("m1"),
    *(records.MemberAlias("m1", ADA, removed) for removed in (False, True)),
    records.WebsiteAssigned("w1", "a"),
    records.PriceSet("tokens", records.MICRO),
    records.PriceSet("tokens", records.MICRO, "default"),
    records.OrganizationSettings(),
]


@pytest.fixture
def few() -> Iterator[None]:
    """Bounds that some steps reach, in the worker and in the model, where each names them."""
    with (
        patch.object(credit_facts, "POOL_GRANTS_MAX", FEW_GRANTS),
        patch.object(membership_facts, "CHANGES_MAX", FEW_CHANGES),
        patch.object(fact_rules, "POOL_GRANTS_MAX", FEW_GRANTS),
        patch.object(fact_rules, "CHANGES_MAX", FEW_CHANGES),
    ):
        yield


@pytest.mark.usefixtures("few")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from(CHANGES), max_size=40),
    st.lists(st.integers(-9, 9).filter(bool), max_size=20),
    st.lists(st.integers(1, 9), max_size=20),
)
def test_the_model_refuses_the_same(
    changes: list[Any], adjustments: list[int], spent: list[int]
) -> None:
    both = AgainstModel()
    both.an_organization_with_groups()
    for fact in changes:
        both.publish("org_7", fact, T0)
    for number, amount_micro in enumerate(adjustments):
        both.publish("org_7", records.Adjusted("group", "a", amount_micro, ""), T0)
        for quantity in spent[number : number + 1]:
            event = cloud_event(
                f"e{number}", subject="m1", type="tokens", data={"quantity": quantity}
            )
            both.receive(codec.encode(event), ORG.encode())
        both.balances_are_what_was_moved()
    both.entries_sum_to_zero()


@pytest.mark.usefixtures("few")
def test_the_model_too_gives_no_place_to_what_a_debt_eats() -> None:
    both = AgainstModel()
    both.an_organization_with_groups()
    # What takes effect later pays no earlier debt: so there are grants beside a debt.
    for amount_micro, hours in ((-50, 0), (1, 2), (1, 2), (1, 2), (-9, 0), (4, 0), (5, 0), (1, 0)):
        adjusted = records.Adjusted("group", "a", amount_micro, "")
        both.publish("org_7", adjusted, T0 + hours * HOUR)
    pool = both.worker.pool("group", "a")
    assert (len(pool.grants), pool.debt_micro) == (FEW_GRANTS, 0)
