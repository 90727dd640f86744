"""Every report equals an independent sum in Python, whatever the rows."""

import csv
import io
import itertools
import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.report import render
from schemas.records import UNASSIGNED, RatedEvent
from tests.sinks.feed import NOON, fact_applied, rated_event
from tests.warehouse.conftest import Put
from warehouse import dimensions
from warehouse.amounts import micro_text, pico_text
from warehouse.late_facts import COUNT_CHANGED_STAMPS
from warehouse.reports import By, SpendReport, spend_report

_organizations = itertools.count(1)
START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)

DAY_S = 86_400

PARTS = st.tuples(*[st.integers(-(2**60), 2**60)] * 3)


@st.composite
def usage(draw: st.DrawFn) -> list[RatedEvent]:
    """Events and corrections about the edges of November, amounts up to the limits of Int64."""
    rows = []
    for number in range(draw(st.integers(1, 12))):
        website, group, overage = draw(PARTS)
        rows.append(
            rated_event(
                number,
                revision=draw(st.sampled_from([0, 0, 7])),
                event_time=draw(
                    st.one_of(
                        st.integers(-2 * DAY_S, 32 * DAY_S).map(
                            lambda seconds: START + timedelta(seconds=seconds)
                        ),
                        st.sampled_from([START, END, END - timedelta(microseconds=1)]),
                    )
                ),
                member_id=draw(st.sampled_from(["ann", "bob", "o'hara \\ 7"])),
                website_id=draw(st.sampled_from(["", "web_1"])),
                meter=draw(st.sampled_from(["ai.tokens", "seats.minutes"])),
                stamped_group_id=draw(st.sampled_from(["g_1", "g_2", "g_gone", UNASSIGNED])),
                quantity_micro=draw(st.integers(0, 2**62)),
                cost_micro=website + group + overage,
                website_debit_micro=website,
                group_debit_micro=group,
                overage_micro=overage,
                credit_price_micro=draw(st.sampled_from([10_000, 1, 2**40])),
                currency=draw(st.sampled_from(["USD", "EUR"])),
            )
        )
    return rows


def key_of(row: RatedEvent, by: By) -> str:
    match by:
        case "group":
            return UNASSIGNED if row.stamped_group_id == "g_gone" else row.stamped_group_id
        case "member":
            return row.member_id
        case "website":
            return row.website_id
        case "meter":
            return row.meter
        case "day":
            return row.event_time.date().isoformat()


def summed(rows: list[RatedEvent]) -> dict[str, Any]:
    money: dict[str, int] = defaultdict(int)
    for row in rows:
        money[row.currency] += row.cost_micro * row.credit_price_micro
    return {
        "events": sum(row.revision == 0 for row in rows),
        "quantity_micro": sum(row.quantity_micro for row in rows),
        "cost_micro": sum(row.cost_micro for row in rows),
        "website_debit_micro": sum(row.website_debit_micro for row in rows),
        "group_debit_micro": sum(row.group_debit_micro for row in rows),
        "overage_micro": sum(row.overage_micro for row in rows),
        "money_pico": dict(money),
    }


def as_dict(amounts: Any) -> dict[str, Any]:
    return {name: getattr(amounts, name) for name in amounts.__slots__}


@given(rows=usage(), resend=st.booleans())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_report_equals_the_sum_in_python(
    client: Any, put: Put, rows: list[RatedEvent], resend: bool
) -> None:
    organization = f"org_{next(_organizations)}"
    for row in rows:
        row.organization_id = organization
    put("usage_rated_rows", rows)
    if resend:
        put("usage_rated_rows", rows[::-1])
    put("facts_applied_rows", [gone(organization)])
    counted = [row for row in rows if START <= row.event_time < END]

    for by in ("group", "member", "website", "meter", "day"):
        report = spend_report(client, organization, "2026-11", by)
        grouped: dict[str, list[RatedEvent]] = defaultdict(list)
        for row in counted:
            grouped[key_of(row, by)].append(row)
        assert {row.id: as_dict(row.amounts) for row in report.rows} == {
            key: summed(of_key) for key, of_key in grouped.items()
        }
        assert as_dict(report.total) == summed(counted)
        check_formats(report)


def check_formats(report: SpendReport) -> None:
    """The printed rows add up to the printed total, as exact decimals."""
    printed = json.loads(render(report, "json"))
    assert printed["total"]["spend_credits"] == micro_text(report.total.cost_micro)
    assert printed["total"]["money"] == {
        currency: pico_text(pico) for currency, pico in report.total.money_pico.items()
    }
    lines = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    assert sum(int(line["events"]) for line in lines) == report.total.events
    assert len(render(report, "table").splitlines()) >= 4


def gone(organization: str) -> Any:
    return fact_applied(
        9, "group_deleted", organization_id=organization, group_id="g_gone", effective_at=NOON
    )


def test_a_deleted_group_is_unassigned_in_all_history(client: Any, put: Put) -> None:
    put("usage_rated_rows", [rated_event(1, stamped_group_id="g_gone", event_time=START)])
    before = spend_report(client, "org_1", "2026-11", "group")
    put("facts_applied_rows", [gone("org_1")])
    after = spend_report(client, "org_1", "2026-11", "group")

    assert [(row.id, row.name) for row in before.rows] == [("g_gone", "g_gone")]
    assert [(row.id, row.name) for row in after.rows] == [(UNASSIGNED, "Unassigned")]
    stamps = client.query("SELECT stamped_group_id FROM spend").result_rows
    assert stamps == [("g_gone",)]


def test_a_deletion_that_is_not_due_yet_changes_nothing(client: Any, put: Put) -> None:
    later = datetime(2099, 1, 1, tzinfo=UTC)
    put("usage_rated_rows", [rated_event(1)])
    put(
        "facts_applied_rows",
        [fact_applied(9, "group_deleted", group_id="group_a", effective_at=later)],
    )

    assert [row.id for row in spend_report(client, "org_1", "2026-11", "group").rows] == ["group_a"]


def test_names_are_the_latest_and_keep_their_history(client: Any, put: Put) -> None:
    put("usage_rated_rows", [rated_event(1), rated_event(2, stamped_group_id="g_2")])
    group = dimensions.BillingGroupName
    dimensions.write(
        client,
        [
            dimensions.OrganizationName("org_1", 1, "Acme", NOON),
            group("org_1", "group_a", 3, "=Research", False, NOON),
            group("org_1", "group_a", 2, "Lab", False, NOON),
            group("org_1", "g_2", 4, "Sales", True, NOON),
            dimensions.MemberName(
                "org_1", "user_1", 1, "Ann", "ann@example.com", False, False, NOON
            ),
            dimensions.WebsiteName("org_1", "web_1", 1, "Shop", False, NOON),
        ],
    )
    report = spend_report(client, "org_1", "2026-11", "group")

    assert {(row.id, row.name) for row in report.rows} == {
        ("group_a", "=Research"),
        (UNASSIGNED, "Unassigned"),
    }
    assert report.organization.name == "Acme"
    assert "'=Research" in render(report, "csv")
    history = client.query("SELECT name FROM billing_group_names WHERE group_id = 'group_a'")
    assert sorted(history.result_rows) == [("=Research",), ("Lab",)]
    by_member = spend_report(client, "org_1", "2026-11", "member")
    assert [row.name for row in by_member.rows] == ["Ann"]
    dimensions.erase_member(client, "org_1", "user_1")
    assert [r.name for r in spend_report(client, "org_1", "2026-11", "member").rows] == [""]


def test_known_now_applies_facts_that_came_late(client: Any, put: Put) -> None:
    """The member moved to g_2 between the events, which became known only after both."""
    put("usage_rated_rows", [rated_event(1), rated_event(100)])
    assigned = {"member_id": "user_1", "how": "api"}
    put(
        "facts_applied_rows",
        [
            fact_applied(2, "member_assigned", group_id="group_a", **assigned),
            fact_applied(
                5, "member_assigned", group_id="g_3",
                effective_at=NOON + timedelta(seconds=50), **assigned,
            ),
            fact_applied(
                6, "member_assigned", group_id="g_2",
                effective_at=NOON + timedelta(seconds=50), **assigned,
            ),
        ],
    )  # fmt: skip

    def costs(as_of: Any) -> dict[str, int]:
        report = spend_report(client, "org_1", "2026-11", "group", as_of)
        return {row.id: row.amounts.cost_micro for row in report.rows}

    assert costs("stamped") == {"group_a": 101}
    assert costs("known-now") == {"group_a": 1, "g_2": 100}
    changed = client.query("SELECT event_id FROM stamps_changed_by_late_facts").result_rows
    assert changed == [("evt_100",)]
    assert client.query(COUNT_CHANGED_STAMPS).result_rows[0][0] in (0, 1)  # by today's date
    ends = client.query(
        "SELECT group_id, version, ends_at FROM memberships ORDER BY effective_at"
    ).result_rows
    assert [row[:2] for row in ends] == [("group_a", 2), ("g_2", 6)]
    assert ends[0][2] == NOON + timedelta(seconds=50)


def test_known_now_knows_removal_websites_and_strangers(client: Any, put: Put) -> None:
    put(
        "usage_rated_rows",
        [
            rated_event(1, website_id="web_1"),
            rated_event(2, member_id="stranger", stamped_group_id=UNASSIGNED),
        ],
    )
    put(
        "facts_applied_rows",
        [
            fact_applied(2, "member_assigned", group_id="group_a", member_id="user_1"),
            fact_applied(3, "member_removed", member_id="user_1"),
            fact_applied(4, "website_assigned", website_id="web_1", group_id="g_web"),
        ],
    )
    rows = client.query(
        "SELECT event_id, group_id, known_website_group_id FROM spend_known_now ORDER BY event_id"
    ).result_rows

    assert rows == [("evt_1", UNASSIGNED, "g_web"), ("evt_2", UNASSIGNED, "")]


def test_the_period_follows_the_settings_of_its_time(client: Any, put: Put) -> None:
    put(
        "facts_applied_rows",
        [
            fact_applied(
                1, "organization_created", effective_at=datetime(2026, 1, 1, tzinfo=UTC),
                fact='{"type":"organization_created","billing_anchor_day":15}',
            ),
            fact_applied(
                2, "organization_settings", effective_at=datetime(2026, 11, 20, tzinfo=UTC),
                fact='{"type":"organization_settings","time_zone":"Europe/Berlin"}',
            ),
        ],
    )  # fmt: skip

    november = spend_report(client, "org_1", "2026-11", "group").period
    december = spend_report(client, "org_1", "2026-12", "group")

    assert november.start == datetime(2026, 11, 15, tzinfo=UTC)
    assert december.period.start == datetime(2026, 11, 30, 23, tzinfo=UTC)
    # People read it by the organization's own clock.
    shown = render(december, "table").splitlines()[1]
    assert shown == "2026-12-01 00:00 up to 2027-01-01 00:00 Europe/Berlin"


def test_views_sum_in_credits_and_money(client: Any, put: Put) -> None:
    put("usage_rated_rows", [rated_event(1_500_000), rated_event(3)])
    credits, money, money_micro = client.query(
        "SELECT sum(credits), sum(money), sum(money_micro) FROM spend"
    ).result_rows[0]

    assert (str(credits), str(money), str(money_micro)) == (
        "1.500003", "0.015000030000", "15000.030000",
    )  # fmt: skip


@pytest.mark.parametrize("lost", ["overage_micro", "organization_id", "event_time"])
def test_a_row_that_lacks_something_is_refused(put: Put, lost: str) -> None:
    row = {
        "organization_id": "org_1",
        "event_id": "evt_1",
        "event_time": "2026-11-01T00:00:00Z",
        "cost_micro": 5,
        "overage_micro": 5,
    }
    del row[lost]

    with pytest.raises(Exception, match="VIOLATED_CONSTRAINT"):
        put("usage_rated_rows", [row])
