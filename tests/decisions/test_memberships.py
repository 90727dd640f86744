"""Facts of `memberships`: what is applied, what is refused and for which reason."""

from datetime import timedelta
from typing import Any

import pytest

from schemas import codec, records
from schemas.reasons import Reason
from schemas.topics import MEMBERSHIPS
from streams.decisions.facts import LATE_AFTER, FactInput, FactOutcome, decide_fact
from tests.decisions.tables import table
from tests.decisions.worker import HOUR, ORG, T0, Worker, alias_hash, instant, worker_with_credits

FACT_TYPES: dict[str, Any] = {
    "settings": records.OrganizationSettings,
    "created": records.OrganizationCreated,
    "assigned": records.MemberAssigned,
    "removed": records.MemberRemoved,
    "alias": records.MemberAlias,
    "group": records.GroupCreated,
    "renamed": records.GroupRenamed,
    "deleted": records.GroupDeleted,
    "website": records.WebsiteAssigned,
    "price": records.PriceSet,
}


def fact_from(text: str) -> Any:
    """`assigned m1 a api` or `settings currency=EUR`."""
    name, *words = text.split()
    arguments = [word.replace("LONG", "x" * 257).replace("EMPTY", "") for word in words]
    named = dict(word.split("=", 1) for word in arguments if "=" in word)
    plain = [word for word in arguments if "=" not in word]
    values: dict[str, Any] = {k: int(v) if v.lstrip("-").isdigit() else v for k, v in named.items()}
    if name == "price":
        return records.PriceSet(plain[0], int(plain[1]), **values)
    if name == "alias":
        return records.MemberAlias(plain[0], alias_hash(plain[1]), removed=len(plain) > 2)
    return FACT_TYPES[name](*plain, **values)


def reason_of(outcome: FactOutcome) -> str:
    return outcome.rejected.reason.value if outcome.rejected else "applied"


@table(
    """
    facts                                                           | expected
    created 0                                                       | organization_exists
    created time_zone=Mars/Phobos 0                                 | invalid_fact
    settings currency=EUR 0                                         | applied
    settings currency=eur 0                                         | invalid_fact
    settings currency=EURO 0                                        | invalid_fact
    settings time_zone=Europe/Berlin 0                              | applied
    settings time_zone=../etc/passwd 0                              | invalid_fact
    settings time_zone=America 0                                    | invalid_fact
    settings time_zone=right/Europe/Berlin 0                        | invalid_fact
    settings time_zone=posix/Europe/Berlin 0                        | invalid_fact
    settings time_zone=localtime 0                                  | invalid_fact
    settings time_zone=EMPTY 0                                      | invalid_fact
    settings billing_anchor_day=31 0                                | applied
    settings billing_anchor_day=0 0                                 | invalid_fact
    settings billing_anchor_day=32 0                                | invalid_fact
    settings credit_price_micro=0 0                                 | applied
    settings credit_price_micro=-1 0                                | invalid_fact
    settings credit_price_micro=9223372036854775808 0               | invalid_fact
    assigned m1 a api 0                                             | applied
    assigned m1 group_unassigned api 0                              | applied
    assigned m1 z api 0                                             | unknown_group
    assigned EMPTY a api 0                                          | invalid_fact
    assigned LONG a api 0                                           | invalid_fact
    assigned m1 a api -60d                                          | applied
    assigned m1 a api +400d                                         | applied
    deleted a 0; assigned m1 a api 0                                | group_deleted
    deleted a 0; assigned m1 a api -1s                              | applied
    deleted a +1h; assigned m1 a api 0                              | applied
    deleted a +1h; assigned m1 a api +1h                            | group_deleted
    removed user_42 0                                               | applied
    removed m1 0                                                    | unknown_member
    alias user_42 a@x 0                                             | applied
    alias m1 a@x 0                                                  | unknown_member
    alias user_42 a@x 0; alias user_42 A@X 0                        | applied
    assigned m1 a api 0; alias user_42 a@x 0; alias m1 a@x +1h      | alias_taken
    assigned m1 a api 0; alias user_42 a@x +1h; alias m1 a@x 0      | alias_taken
    alias user_42 a@x 0; alias user_42 a@x removed +1h              | applied
    alias user_42 a@x removed 0                                     | invalid_fact
    alias user_42 a@x +1h; alias user_42 a@x removed 0              | invalid_fact
    group c 0                                                       | applied
    group a 0                                                       | group_exists
    deleted a 0; group a +1h                                        | group_exists
    group group_unassigned 0                                        | reserved_group
    renamed a 0                                                     | applied
    renamed z 0                                                     | unknown_group
    renamed group_unassigned 0                                      | reserved_group
    deleted a 0; renamed a 0                                        | group_deleted
    deleted a 0                                                     | applied
    deleted a 0; deleted a +1h                                      | group_deleted
    deleted z 0                                                     | unknown_group
    deleted group_unassigned 0                                      | reserved_group
    website w a 0                                                   | applied
    website w group_unassigned 0                                    | applied
    website w z 0                                                   | unknown_group
    price m 0 0                                                     | applied
    price m 5 book=default 0                                        | applied
    price m -1 0                                                    | invalid_fact
    price m 9223372036854775808 0                                   | invalid_fact
    price m 1 +99999d                                               | invalid_fact
    price m 1 -99999d                                               | invalid_fact
"""
)
def test_the_last_fact(facts: str, expected: str) -> None:
    worker = worker_with_credits()
    for text in facts.split(";"):
        what, at = text.strip().rsplit(" ", 1)
        outcome = worker.publish(fact_from(what), instant(at))
    assert reason_of(outcome) == expected


def test_an_alias_passes_on_when_it_was_removed() -> None:
    worker = worker_with_credits()
    for text, at in (
        ("assigned m1 b api", "-5h"),
        ("alias user_42 a@x", "-5h"),
        ("alias user_42 a@x removed", "-3h"),
        ("alias m1 a@x", "-1h"),
    ):
        assert worker.publish(fact_from(text), instant(at)).applied is not None
    stamps = []
    for number, at in enumerate(("-6h", "-4h", "-2h", "0")):
        row = worker.send(f"evt_{number}", subject="A@x", time=instant(at))
        assert isinstance(row, records.RatedEvent)
        stamps.append((row.member_id, row.resolved_by, row.stamped_group_id))
    assert stamps == [
        ("A@x", "unknown", records.UNASSIGNED),
        ("user_42", "alias", "a"),
        ("A@x", "unknown", records.UNASSIGNED),
        ("m1", "alias", "b"),
    ]


def test_a_row_of_facts_applied_says_everything() -> None:
    worker = worker_with_credits()
    applied = worker.publish(records.MemberAssigned("m1", "a", "scim"), T0 - HOUR).applied
    assert applied == records.FactApplied(
        organization_id=ORG,
        topic="memberships",
        version=7,
        type="member_assigned",
        effective_at=T0 - HOUR,
        recorded_at=T0,
        applied_at=T0,
        member_id="m1",
        group_id="a",
        website_id="",
        grant_id="",
        how="scim",
        fact='{"type":"member_assigned","member_id":"m1","group_id":"a","how":"scim"}',
        input_partition=3,
        input_offset=17,
    )


@pytest.mark.parametrize(
    ("ago", "late"), [(timedelta(0), False), (LATE_AFTER, False), (LATE_AFTER + HOUR, True)]
)
def test_a_fact_is_late_where_stamps_may_have_been_given_without_it(
    ago: timedelta, late: bool
) -> None:
    outcome = worker_with_credits().publish(records.MemberRemoved("user_42"), T0 - ago)
    assert outcome.late == late


def test_nothing_is_known_before_the_organization() -> None:
    worker = Worker()
    for fact in (records.GroupCreated("a"), records.Adjusted("group", "a", 5, "")):
        assert reason_of(worker.publish(fact, version=1)) == "unknown_organization"
    assert reason_of(worker.publish(records.OrganizationCreated(), version=2)) == (
        "unknown_organization"
    )
    refused = worker.publish(records.OrganizationCreated(currency="x"), version=1)
    assert reason_of(refused) == "invalid_fact"
    assert not worker.state.values, "an organization that is refused can be published again"
    assert reason_of(worker.publish(records.OrganizationCreated(), version=1)) == "applied"


class TestVersions:
    """Versions are gap-free; a conflict stops the topic until it is mended."""

    def test_a_repetition_is_ignored_whenever_it_was_recorded(self) -> None:
        worker = worker_with_credits()
        at = T0 - 24 * HOUR
        worker.now = T0 + HOUR
        outcome = worker.publish(records.GroupCreated("a"), at, version=2)
        assert outcome.ignored
        assert outcome.rejected is None
        assert outcome.applied is None
        assert not outcome.changes

    def test_a_gap_is_refused_and_can_be_filled(self) -> None:
        worker = worker_with_credits()
        assert reason_of(worker.publish(records.GroupCreated("d"), version=8)) == "version_gap"
        assert reason_of(worker.publish(records.GroupCreated("c"), version=7)) == "applied"
        assert reason_of(worker.publish(records.GroupCreated("d"), version=8)) == "applied"

    def test_other_content_stops_the_topic_until_the_applied_one_comes_again(self) -> None:
        worker = worker_with_credits()
        at = T0 - 24 * HOUR
        conflict = worker.publish(records.GroupCreated("z"), at, version=2)
        assert reason_of(conflict) == "version_conflict"
        assert reason_of(worker.publish(records.GroupCreated("y"), at, version=3)) == (
            "version_conflict"
        )
        assert reason_of(worker.publish(records.GroupCreated("c"), version=7)) == "facts_stopped"
        grant = records.Granted("g", "group", "a", "one_time", 5, "admin:x")
        assert reason_of(worker.publish(grant)) == "applied", "the other topic goes on"
        assert worker.publish(records.GroupCreated("b"), at, version=3).ignored
        assert reason_of(worker.publish(records.GroupCreated("c"), version=7)) == "facts_stopped"
        assert worker.publish(records.GroupCreated("a"), at, version=2).ignored
        assert reason_of(worker.publish(records.GroupCreated("c"), version=7)) == "applied"

    def test_credits_are_stopped_and_mended_apart(self) -> None:
        worker = worker_with_credits()
        grant = records.Granted("g", "group", "a", "one_time", 5, "admin:x")
        assert reason_of(worker.publish(grant, T0)) == "applied"
        other = records.Granted("g", "group", "a", "one_time", 6, "admin:x")
        assert reason_of(worker.publish(other, T0, version=1)) == "version_conflict"
        assert reason_of(worker.publish(other, T0, version=2)) == "facts_stopped"
        assert reason_of(worker.publish(records.GroupCreated("c"))) == "applied"
        assert worker.publish(grant, T0, version=1).ignored
        assert reason_of(worker.publish(other, T0, version=2)) == "grant_exists"

    def test_a_fact_refused_for_its_content_consumes_its_version(self) -> None:
        worker = worker_with_credits()
        assert reason_of(worker.publish(records.GroupCreated("a"), T0, version=7)) == "group_exists"
        assert worker.publish(records.GroupCreated("a"), T0, version=7).ignored
        assert reason_of(worker.publish(records.GroupCreated("c"), T0, version=8)) == "applied"


RECORD = {
    "organization_id": ORG,
    "version": 7,
    "recorded_at": "2026-11-01T12:00:00Z",
    "effective_at": "2026-11-01T12:00:00Z",
    "fact": {"type": "group_created", "group_id": "c"},
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"effective_at": "2026-11-01T12:00:00"}, Reason.INVALID_FACT),
        ({"effective_at": "0001-01-01T00:00:00+10:00"}, Reason.INVALID_FACT),
        ({"organization_id": ""}, Reason.INVALID_FACT),
        ({"organization_id": "x" * 257}, Reason.INVALID_FACT),
        ({"organization_id": "a\0b"}, Reason.INVALID_FACT),
        ({"organization_id": "org_8"}, Reason.WRONG_KEY),
        ({"version": 0}, Reason.INVALID_FACT),
        ({"version": 2**63}, Reason.INVALID_FACT),
        ({"version": 1.0}, Reason.INVALID_FACT),
        ({"fact": {"type": "granted"}}, Reason.INVALID_FACT),
        ({"fact": {"type": "group_created"}}, Reason.INVALID_FACT),
        ({"fact": {"type": "group_created", "group_id": "c", "name": "C"}}, Reason.INVALID_FACT),
        ({"fact": {"type": "group_created", "group_id": "a\0"}}, Reason.INVALID_FACT),
    ],
)
def test_the_record_itself(changes: dict[str, Any], expected: Reason | None) -> None:
    value = codec.encode({**RECORD, **changes})
    rejected = worker_with_credits().receive_fact("memberships", value, ORG.encode()).rejected
    assert (rejected.reason if rejected else None) == expected


@pytest.mark.parametrize(
    ("value", "key", "expected"),
    [
        (None, ORG.encode(), Reason.EMPTY_VALUE),
        (b"", ORG.encode(), Reason.EMPTY_VALUE),
        (b"{", ORG.encode(), Reason.INVALID_FACT),
        (b"\xff", ORG.encode(), Reason.INVALID_FACT),
        (
            b'{"fact":' + b'{"type":' * 3_000 + b"1" + b"}" * 3_001,
            ORG.encode(),
            Reason.INVALID_FACT,
        ),
        (codec.encode(RECORD), None, Reason.WRONG_KEY),
        (codec.encode(RECORD), b"\xff", Reason.WRONG_KEY),
    ],
)
def test_bytes_that_are_no_fact(value: bytes | None, key: bytes | None, expected: Reason) -> None:
    rejected = worker_with_credits().receive_fact("memberships", value, key).rejected
    assert rejected is not None
    assert rejected.reason == expected


def test_a_detail_is_bounded_whatever_was_sent() -> None:
    value = codec.encode({**RECORD, "x" * 100_000: 1})
    rejected = worker_with_credits().receive_fact("memberships", value, ORG.encode()).rejected
    assert rejected is not None
    assert len(rejected.detail) < 300


def test_publishing_the_whole_topic_again_changes_nothing() -> None:
    worker = worker_with_credits()
    before = dict(worker.state.values)
    worker.versions.clear()
    at = T0 - 24 * HOUR
    for fact in (
        records.OrganizationCreated(),
        records.GroupCreated("a"),
        records.GroupCreated("b"),
        records.MemberAssigned("user_42", "a", "api"),
    ):
        assert worker.publish(fact, at).ignored
    assert worker.state.values == before


def test_a_fact_in_a_partition_that_is_not_its_organizations_is_refused() -> None:
    worker = Worker()
    record = records.MembershipRecord(ORG, 1, T0, T0, records.OrganizationCreated())
    given = FactInput(MEMBERSHIPS, 3, 17, ORG.encode(), codec.encode(record), T0, 4)
    outcome = decide_fact(given, worker.state)
    assert reason_of(outcome) == "wrong_partition"
    assert not outcome.changes
