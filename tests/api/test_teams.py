"""`/teams/groups` answers as Cursor's Admin API does, and refuses in its shape."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import pytest

from api.rules.directory import create_directory_group, set_directory_members
from api.rules.groups import attach_directory, create_group
from api.rules.members import NewMember, create_member
from tests.api.conftest import ADMIN
from tests.api.rated import RatedRow, insert_rated
from tests.api.serving import Served, serving
from tests.conftest import MakeSettings
from warehouse.migrations import migrate as migrate_warehouse

NOW = datetime.now(UTC)


@pytest.fixture
def served(make_settings: MakeSettings, clickhouse: object) -> Iterator[Served]:
    settings = make_settings()
    migrate_warehouse(settings)
    with serving(settings) as opened:
        with opened.control.change("org_a", ADMIN) as change:
            for name in ("ann", "ben"):
                email = f"{name}@example.com"
                create_member(change, NewMember(email, name.title(), member_id=name))
        yield opened


@pytest.fixture
def admin(served: Served) -> Iterator[httpx.Client]:
    with served.client("admin") as client:
        yield client


def create(admin: httpx.Client, name: str) -> str:
    answer = admin.post("/teams/groups", json={"name": name, "type": "BILLING"})
    assert answer.status_code == 200, answer.text
    group_id: str = answer.json()["group"]["id"]
    return group_id


def test_a_script_written_for_cursor_works(admin: httpx.Client) -> None:
    group_id = create(admin, "Research")
    assert group_id.startswith("group_")
    assert len(group_id) == 32
    added = admin.post(f"/teams/groups/{group_id}/members", json={"userIds": ["ann", "ben"]})
    members = added.json()["group"]["members"]
    assert [one["userId"] for one in members] == ["ann", "ben"]
    assert set(members[0]) == {"userId", "name", "email", "joinedAt"}
    removed = admin.request(
        "DELETE", f"/teams/groups/{group_id}/members", json={"userIds": ["ben"]}
    )
    assert removed.json()["group"]["memberCount"] == 1
    renamed = admin.patch(f"/teams/groups/{group_id}", json={"name": "Lab"})
    assert renamed.json()["group"]["name"] == "Lab"
    listed = admin.get("/teams/groups").json()
    (group,) = listed["groups"]
    assert set(group) >= {
        *("id", "name", "type", "directoryGroupId", "memberCount", "createdAt", "updatedAt"),
        *("spendCents", "currentMembers", "formerMembers", "dailySpend"),
    }
    assert [one["userId"] for one in group["currentMembers"]] == ["ann"]
    assert [one["userId"] for one in group["formerMembers"]] == ["ben"]
    assert group["formerMembers"][0]["leftAt"]
    assert listed["unassignedGroup"]["id"] == "group_unassigned"
    assert [one["userId"] for one in listed["unassignedGroup"]["currentMembers"]] == ["ben"]
    assert listed["billingCycle"]["cycleStart"] <= listed["billingCycle"]["cycleEnd"]
    assert admin.delete(f"/teams/groups/{group_id}").status_code == 204
    assert admin.get("/teams/groups").json()["groups"] == []


def test_spend_is_in_fractional_cents_and_follows_the_stamp(
    admin: httpx.Client, served: Served
) -> None:
    group_id = create(admin, "Research")
    other = create(admin, "Sales")
    day = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    insert_rated(
        served.app.state.api.settings,
        [
            RatedRow("e1", "ann", group_id, day, 2_450_125_487, overage_micro=450_125_487),
            RatedRow("e2", "ben", group_id, day, 1, meter="ai.images"),
            RatedRow("e3", "ann", other, day, 7_000_000),
        ],
    )
    group = admin.get(f"/teams/groups/{group_id}").json()["group"]
    assert group["spendCents"] == 2450.125488
    assert group["dailySpend"] == [{"date": day.date().isoformat(), "spendCents": 2450.125488}]
    table = admin.get("/v1/organizations/org_a/groups").json()
    assert {row["name"]: row["spend_micro"] for row in table["items"]} == {
        "Research": 2_450_125_488,
        "Sales": 7_000_000,
    }
    spend = admin.post("/teams/spend", json={"sortBy": "amount"}).json()
    assert spend["totalMembers"] == 2
    first = spend["teamMemberSpend"][0]
    assert (first["userId"], first["spendCents"]) == ("ann", 450.125487)
    assert first["overallSpendCents"] == 2457.125487
    events = admin.post("/teams/filtered-usage-events", json={"email": "ANN@example.com"}).json()
    assert events["totalUsageEventsCount"] == 2
    assert sum(event["chargedCents"] for event in events["usageEvents"]) == 2457.125487
    assert events["usageEvents"][0]["timestamp"].isdigit()
    assert events["pagination"]["numPages"] == 1
    one = admin.post(
        "/teams/filtered-usage-events", json={"userId": "ann", "email": "ben@example.com"}
    )
    assert one.json()["totalUsageEventsCount"] == 0
    start = int(day.timestamp() * 1000)
    daily = admin.post(
        "/teams/daily-usage-data", json={"startDate": start, "endDate": start + 86_400_000}
    ).json()
    assert {(row["userId"], row["usageEvents"]) for row in daily["data"]} == {
        ("ann", 2),
        ("ben", 1),
    }
    admin.delete(f"/teams/groups/{group_id}")
    served_rows = admin.get("/v1/organizations/org_a/groups").json()
    assert [row["name"] for row in served_rows["items"]] == ["Sales"]
    assert served_rows["unassigned"]["spend_micro"] == 2_450_125_488
    unassigned = admin.get("/teams/groups/group_unassigned").json()["group"]
    assert unassigned["spendCents"] == 2450.125488
    people = [one["spendCents"] for one in unassigned["currentMembers"]]
    assert people == [2450.125487, 0.000001]


def test_past_cycles_keep_the_settings_of_their_time(admin: httpx.Client, served: Served) -> None:
    cycle = admin.get("/teams/groups").json()["billingCycle"]
    settings = {"billing_anchor_day": 15, "time_zone": "Europe/Berlin"}
    with served.client("operator") as operator:
        assert operator.patch("/v1/organizations/org_a", json=settings).status_code == 200
    running = admin.get("/teams/groups").json()["billingCycle"]
    assert running["cycleStart"] == cycle["cycleStart"]
    end = datetime.fromisoformat(running["cycleEnd"]).astimezone(ZoneInfo("Europe/Berlin"))
    assert (end.day, end.hour) == (15, 0)
    spend = admin.post("/teams/spend", json={"sortBy": "amount"}).json()
    start = datetime.fromisoformat(running["cycleStart"])
    assert spend["subscriptionCycleStart"] == int(start.timestamp() * 1000)
    past = {"cycleStart": "2026-04-01T00:00:00.000Z", "cycleEnd": "2026-05-01T00:00:00.000Z"}
    first = datetime(2026, 5, 1, tzinfo=UTC)
    insert_rated(
        served.app.state.api.settings,
        [
            RatedRow("e1", "ann", "group_unassigned", first - timedelta(microseconds=1), 1_000_000),
            RatedRow("e2", "ann", "group_unassigned", first, 2_000_000),
        ],
    )
    for day, cents in (("2026-04-14", 1.0), ("2026-04-30", 1.0), ("2026-05-01", 2.0)):
        answer = admin.get("/teams/groups", params={"billingCycle": day}).json()
        assert answer["unassignedGroup"]["spendCents"] == cents
        table = admin.get("/v1/organizations/org_a/groups", params={"billing_cycle": day}).json()
        assert table["unassigned"]["spend_cents"] == cents
        if cents == 1.0:
            assert answer["billingCycle"] == past
    for path, name in (
        ("/teams/groups", "billingCycle"),
        ("/v1/organizations/org_a/groups", "billing_cycle"),
    ):
        refused = admin.get(path, params={name: "0001-01-01"})
        assert refused.status_code == 400
        said = refused.json()
        assert (said["error"] if path.startswith("/v1") else said)["where"] == name


def test_lists_of_people_are_sorted_searched_and_paged(admin: httpx.Client, served: Served) -> None:
    day = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    insert_rated(
        served.app.state.api.settings,
        [
            RatedRow("e1", "ben", "group_unassigned", day, 3_000_000),
            RatedRow("e2", "nobody", "group_unassigned", day, 1_000_000),
        ],
    )

    def spend(**question: object) -> list[tuple[str, float]]:
        rows = admin.post("/teams/spend", json=question).json()["teamMemberSpend"]
        return [(row["userId"], row["overallSpendCents"]) for row in rows]

    assert spend(sortBy="amount") == [("ben", 3), ("ann", 0)]
    assert spend(sortDirection="asc") == [("ann", 0), ("ben", 3)]
    assert spend(sortBy="user", sortDirection="asc") == [("ann", 0), ("ben", 3)]
    assert spend(sortBy="date", page=2, pageSize=1) == [("ann", 0)]
    assert spend(searchTerm="BEN@") == [("ben", 3)]
    start = int(day.timestamp() * 1000)
    period = {"startDate": start, "endDate": start + 86_400_000}
    everybody = admin.post("/teams/daily-usage-data", json=period).json()
    assert [row["email"] for row in everybody["data"]] == ["ben@example.com", ""]
    assert "pagination" not in everybody
    second = admin.post("/teams/daily-usage-data", json={**period, "page": 2, "pageSize": 1}).json()
    assert [(row["userId"], row["isActive"]) for row in second["data"]] == [
        ("ben", True),
        ("ben", False),
    ]
    assert second["pagination"] == {
        "page": 2,
        "pageSize": 1,
        "totalUsers": 3,
        "totalPages": 3,
        "hasNextPage": True,
        "hasPreviousPage": True,
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/teams/groups", {"name": ""}, 400),
        ("POST", "/teams/groups", {"name": "x", "colour": "red"}, 400),
        ("POST", "/teams/groups", {"name": "unassigned"}, 409),
        ("PATCH", "/teams/groups/group_x", {"name": "x"}, 404),
        ("PATCH", "/teams/groups/group_x", {"name": "x", "directoryGroupId": None}, 400),
        ("PATCH", "/teams/groups/group_unassigned", {"name": "x"}, 409),
        ("DELETE", "/teams/groups/group_unassigned", None, 409),
        ("POST", "/teams/groups/group_x/members", {"userIds": []}, 400),
        ("POST", "/teams/filtered-usage-events", {"hostingType": "moon"}, 400),
        ("POST", "/teams/filtered-usage-events", {"pageSize": 0}, 400),
        ("POST", "/teams/daily-usage-data", {"startDate": 0, "endDate": 2_678_400_000}, 400),
        ("GET", "/teams/nothing", None, 404),
        ("GET", "/teams", None, 404),
        ("POST", "/teams/user-spend-limit", {}, 404),
        ("POST", "/organizations/pooled-usage", {}, 404),
        ("GET", "/analytics/team/dau?startDate=7d", None, 404),
        ("PUT", "/teams/groups", {}, 405),
        ("GET", "/teams/groups?billingCycle=9999-12-31", None, 400),
    ],
)
def test_refusals_have_cursors_shape(
    admin: httpx.Client, method: str, path: str, body: object, status: int
) -> None:
    answer = admin.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert isinstance(error["error"], str)
    assert error["message"]
    assert error["what_to_do"]


def test_somebody_of_another_group_must_be_removed_first(admin: httpx.Client) -> None:
    one, two = create(admin, "One"), create(admin, "Two")
    admin.post(f"/teams/groups/{one}/members", json={"userIds": ["ann"]})
    refused = admin.post(f"/teams/groups/{two}/members", json={"userIds": ["ann"]})
    assert refused.status_code == 409
    assert refused.json()["code"] == "member_in_other_group"
    assert refused.json()["where"] == "userIds[0]"


def test_members(admin: httpx.Client) -> None:
    members = admin.get("/teams/members").json()["teamMembers"]
    assert members[0] == {
        "id": "ann",
        "name": "Ann",
        "email": "ann@example.com",
        "role": "member",
        "isRemoved": False,
    }


def test_whom_two_synced_groups_want_is_shown(admin: httpx.Client, served: Served) -> None:
    with served.control.change("org_a", ADMIN) as change:
        for name in ("sales", "lab"):
            directory = create_directory_group(change, name, None)
            create_group(change, name, name)
            attach_directory(change, name, directory.id)
            set_directory_members(change, directory, {"ann"})
    listed = admin.get("/teams/groups").json()
    conflict = [{"userId": "ann", "groupIds": ["lab", "sales"]}]
    assert [group["syncConflicts"] for group in listed["groups"]] == [conflict, conflict]
    assert listed["unassignedGroup"]["syncConflicts"] == []
    assert admin.get("/teams/groups/sales").json()["group"]["syncConflicts"] == conflict


TABLE = "/v1/organizations/org_a/groups"


def test_the_table_is_searched_and_filtered(admin: httpx.Client) -> None:
    for name in ("Sales", "Field SALES", "Labor"):
        create(admin, name)

    def names(**parameters: str) -> list[str]:
        answer = admin.get(TABLE, params=parameters).json()
        assert answer["unassigned"]["member_count"] == 2
        return [one["name"] for one in answer["items"]]

    assert names(search="sales") == ["Field SALES", "Sales"]
    assert names(search="SALES", configured_by="api") == ["Field SALES", "Sales"]
    assert names(configured_by="scim") == []
    assert admin.get(TABLE, params={"configured_by": "magic"}).status_code == 400


def test_unassigned_is_read_like_any_group(admin: httpx.Client) -> None:
    unassigned = admin.get(f"{TABLE}/group_unassigned").json()
    assert unassigned["member_count"] == 2
    assert set(unassigned) == set(admin.get(f"{TABLE}/{create(admin, 'X')}").json())
    group = admin.get("/teams/groups/group_unassigned").json()["group"]
    assert [one["userId"] for one in group["currentMembers"]] == ["ann", "ben"]
