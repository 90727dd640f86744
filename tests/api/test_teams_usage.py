"""`/teams`: usage events and daily usage have Cursor's fields, numbers, filters and defaults."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.rules.members import NewMember, create_member
from tests.api.conftest import ADMIN
from tests.api.rated import RatedRow, insert_rated
from tests.api.serving import Served, serving
from tests.conftest import MakeSettings
from warehouse.migrations import migrate as migrate_warehouse

NOW = datetime.now(UTC)
TODAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
DAY_MS = 86_400_000
ROWS = [
    RatedRow("e1", "ann", "group_unassigned", TODAY, 3_000_000, quantity_micro=1_830_000_000),
    RatedRow("e2", "ann", "group_unassigned", TODAY, 500_000, 500_000, quantity_micro=2_500_000),
    RatedRow(
        "e3",
        "ann",
        "group_unassigned",
        TODAY,
        1_000_000,
        quantity_micro=7_000_000,
        dimensions={"model": "large", "token_type": "cache_read", "cloud_agent_id": "bc_1"},
    ),
    RatedRow(
        "e4",
        "ben",
        "group_unassigned",
        TODAY,
        2_000_000,
        meter="pages.written",
        dimensions={"hosting_type": "SELF_HOSTED_POOL", "automation_id": "auto_1"},
    ),
]


@pytest.fixture
def served(make_settings: MakeSettings, clickhouse: object) -> Iterator[Served]:
    settings = make_settings()
    migrate_warehouse(settings)
    with serving(settings) as opened:
        with opened.control.change("org_a", ADMIN) as change:
            for name in ("ann", "ben"):
                create_member(change, NewMember(f"{name}@example.com", name, member_id=name))
        insert_rated(settings, ROWS)
        yield opened


@pytest.fixture
def admin(served: Served) -> Iterator[httpx.Client]:
    with served.client("admin") as client:
        yield client


def events(admin: httpx.Client, **question: object) -> dict[str, Any]:
    answer = admin.post("/teams/filtered-usage-events", json=question)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def test_an_event_of_tokens_tells_its_tokens(admin: httpx.Client) -> None:
    fields = {
        event["chargedCents"]: event.get("tokenUsage") for event in events(admin)["usageEvents"]
    }
    none = {"inputTokens": 0, "outputTokens": 0, "cacheWriteTokens": 0, "cacheReadTokens": 0}
    assert fields == {
        3: none | {"inputTokens": 1830, "totalCents": 3},
        0.5: none | {"inputTokens": 2, "totalCents": 0.5},
        1: none | {"cacheReadTokens": 7, "totalCents": 1},
        2: None,
    }
    for event in events(admin)["usageEvents"]:
        assert event["isTokenBasedCall"] == ("tokenUsage" in event)


@pytest.mark.parametrize(
    ("question", "cents"),
    [
        ({"cloudAgentId": "bc_1"}, [1]),
        ({"cloudAgentId": "*"}, [1]),
        ({"cloudAgentId": "bc_2"}, []),
        ({"automationId": "*"}, [2]),
        ({"automationId": "*", "cloudAgentId": "*"}, []),
        ({"hostingType": "SELF_HOSTED"}, [2]),
        ({"hostingType": "SELF_HOSTED_POOL"}, [2]),
        ({"hostingType": "SELF_HOSTED_MACHINE"}, []),
        ({"hostingType": "CLOUD"}, []),
        ({"userId": 12345}, []),
        ({"userId": "ben"}, [2]),
    ],
)
def test_filters_of_events(
    admin: httpx.Client, question: dict[str, object], cents: list[int]
) -> None:
    assert [event["chargedCents"] for event in events(admin, **question)["usageEvents"]] == cents


def test_a_page_is_never_larger_than_the_largest(admin: httpx.Client) -> None:
    page = events(admin, pageSize=5_000)
    assert page["pagination"] == {
        "numPages": 1,
        "currentPage": 1,
        "pageSize": 1_000,
        "hasNextPage": False,
        "hasPreviousPage": False,
    }


def test_whole_numbers_have_no_fraction(admin: httpx.Client) -> None:
    fractions: list[str] = []
    start = int(TODAY.timestamp() * 1000)
    for answer in (
        admin.get("/teams/groups"),
        admin.get("/teams/groups/group_unassigned"),
        admin.post("/teams/spend", json={}),
        admin.post("/teams/filtered-usage-events", json={}),
        admin.post("/teams/daily-usage-data", json={"startDate": start, "endDate": start + 9}),
    ):
        json.loads(answer.content, parse_float=lambda text: fractions.append(text))
    assert set(fractions) == {"0.5", "4.5", "6.5", "2.5", "1839.5"}


def test_members_of_a_group_have_their_spend_by_day(admin: httpx.Client) -> None:
    group = admin.get("/teams/groups/group_unassigned").json()["group"]
    day = TODAY.date().isoformat()
    assert {one["userId"]: one["dailySpend"] for one in group["currentMembers"]} == {
        "ann": [{"date": day, "spendCents": 4.5}],
        "ben": [{"date": day, "spendCents": 2}],
    }


def test_daily_usage_has_every_field_of_cursors_and_a_default_period(admin: httpx.Client) -> None:
    daily = admin.post("/teams/daily-usage-data", json={}).json()
    assert daily["period"]["endDate"] - daily["period"]["startDate"] == 30 * DAY_MS
    ann, ben = daily["data"]
    assert ann["day"] == TODAY.date().isoformat()
    assert ann["date"] == int(TODAY.timestamp() * 1000)
    assert (ann["subscriptionIncludedReqs"], ann["usageBasedReqs"], ann["usageEvents"]) == (2, 1, 3)
    assert ann["mostUsedModel"] == "ai.tokens"
    assert ann["quantities"] == {"ai.tokens": 1839.5}
    assert (ben["email"], ben["isActive"], ben["mostUsedModel"]) == (
        "ben@example.com",
        True,
        "pages.written",
    )
    assert set(ann) >= {
        *("totalLinesAdded", "totalLinesDeleted", "acceptedLinesAdded", "acceptedLinesDeleted"),
        *("totalApplies", "totalAccepts", "totalRejects", "totalTabsShown", "totalTabsAccepted"),
        *("composerRequests", "chatRequests", "agentRequests", "cmdkUsages", "apiKeyReqs"),
        *("bugbotUsages", "applyMostUsedExtension", "tabMostUsedExtension", "clientVersion"),
    }


def test_thirty_days_back_to_the_end_of_today_are_thirty_days(admin: httpx.Client) -> None:
    """As an exporter asks that counts days: midnight 30 days ago to the last millisecond today."""
    start = int((TODAY - timedelta(days=30)).timestamp() * 1000)
    period = {"startDate": start, "endDate": start + 31 * DAY_MS - 1}
    assert admin.post("/teams/daily-usage-data", json=period).status_code == 200
    period["endDate"] += 1
    assert admin.post("/teams/daily-usage-data", json=period).status_code == 400


def test_pages_of_daily_usage_have_idle_days_too(admin: httpx.Client) -> None:
    start = int((TODAY - timedelta(days=1)).timestamp() * 1000)
    question = {"startDate": start, "endDate": start + 2 * DAY_MS - 1, "page": 1, "pageSize": 9}
    page = admin.post("/teams/daily-usage-data", json=question).json()
    assert [(row["userId"], row["day"], row["isActive"]) for row in page["data"]] == [
        (member, (TODAY - timedelta(days=ago)).date().isoformat(), ago == 0)
        for ago in (1, 0)
        for member in ("ann", "ben")
    ]
    assert {row["email"] for row in page["data"]} == {"ann@example.com", "ben@example.com"}
    before = {"startDate": start - DAY_MS, "endDate": start - 1, "page": 1}
    assert admin.post("/teams/daily-usage-data", json=before).json()["data"] == []


def test_two_exporters_written_for_cursor_find_what_they_read(
    admin: httpx.Client, served: Served
) -> None:
    """One in Go, with its key as a bearer token and integers in its structs; one in Python, with
    Basic authentication, that reads day by day in pages of 200. Both were run against the demo."""
    headers = {"Authorization": f"Bearer {served.key('admin', 'org_a')}"}
    start = int((TODAY - timedelta(days=30)).timestamp() * 1000)
    month = {"startDate": start, "endDate": start + 31 * DAY_MS - 1}
    with httpx.Client(base_url=served.url, headers=headers) as go:
        options: dict[str, Any] = {"headers": {"Content-Type": "application/json"}}
        members = go.get("/teams/members", **options).json()["teamMembers"]
        spend = go.post("/teams/spend", json={"page": 1, "pageSize": 1000}).json()
        daily = go.post("/teams/daily-usage-data", json=month).json()["data"]
        listed = go.post(
            "/teams/filtered-usage-events", json={**month, "page": 1, "pageSize": 5000}
        ).json()
    assert {type(one[name]) for one in members for name in ("name", "email", "role")} == {str}
    assert isinstance(spend["totalPages"], int)
    whole = {one["email"]: one["overallSpendCents"] for one in spend["teamMemberSpend"]}
    assert type(whole["ben@example.com"]) is int
    counted = ("date", "totalLinesAdded", "totalAccepts", "totalTabsAccepted", "composerRequests")
    assert {type(one[name]) for one in daily for name in counted} == {int}
    tokens = [one["tokenUsage"] for one in listed["usageEvents"] if "tokenUsage" in one]
    assert {type(one[name]) for one in tokens for name in one if name != "totalCents"} == {int}
    assert listed["pagination"]["hasNextPage"] is False
    day = {"startDate": start + 30 * DAY_MS, "endDate": start + 31 * DAY_MS - 1}
    summaries = admin.post("/teams/daily-usage-data", json=day).json()["data"]
    assert [(type(one["isActive"]), type(one["date"])) for one in summaries] == [(bool, int)] * 2
    page = events(admin, **day, page=1, pageSize=200)
    assert len(page["usageEvents"]) == 4
    assert events(admin, **day, page=2, pageSize=200)["usageEvents"] == []
