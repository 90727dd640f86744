"""`/teams/audit-logs` takes Cursor's parameters and answers in its shape."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.errors import Refused
from api.rules.groups import create_group
from api.rules.members import NewMember, create_member
from api.storage.ledgers import AuditEntry
from api.web.teams_audit import parse_moment
from tests.api.conftest import ADMIN
from tests.api.serving import Served, serving
from tests.conftest import MakeSettings

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


@pytest.fixture
def served(make_settings: MakeSettings) -> Iterator[Served]:
    with serving(make_settings()) as opened:
        with opened.control.change("org_a", ADMIN) as change:
            create_member(change, NewMember("ann@example.com", "Ann Größer", member_id="ann"))
            create_member(change, NewMember("ben@example.com", "Ben", member_id="ben"))
            create_group(change, "Research", "group_research")
        yield opened


@pytest.fixture
def admin(served: Served) -> Iterator[httpx.Client]:
    with served.client("admin") as client:
        yield client


def audit_page(admin: httpx.Client, **question: Any) -> dict[str, Any]:
    answer = admin.get("/teams/audit-logs", params=question)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def subjects(admin: httpx.Client, **question: Any) -> list[str]:
    return [one["event_data"]["subject_id"] for one in audit_page(admin, **question)["events"]]


def test_an_event_has_cursors_shape(admin: httpx.Client) -> None:
    page = audit_page(admin, search="group_research")
    (event,) = page["events"]
    assert set(event) == {
        *("event_id", "timestamp", "ip_address", "user_email", "event_type", "event_data"),
    }
    assert (event["event_type"], event["user_email"]) == ("group.create", ADMIN.id)
    assert event["event_data"]["after"]["name"] == "Research"
    assert page["pagination"] == {
        "page": 1,
        "pageSize": 100,
        "totalCount": 1,
        "totalPages": 1,
        "hasNextPage": False,
        "hasPreviousPage": False,
    }
    params = page["params"]
    assert params["teamId"] == "org_a"
    assert params["endDate"] - params["startDate"] == 7 * 86_400_000


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("add_user, group.create", ["group_research", "ben", "ann"]),
        ("member.create", ["ben", "ann"]),
        ("login", []),
    ],
)
def test_event_types_are_cursors_words_or_ours(
    admin: httpx.Client, words: str, expected: list[str]
) -> None:
    assert subjects(admin, eventTypes=words) == expected


def test_users_are_who_did_something_or_whom_it_concerns(admin: httpx.Client) -> None:
    assert set(subjects(admin, users="ANN@example.com")) == {"ann"}
    assert set(subjects(admin, users="ben,nobody@example.com")) == {"ben"}
    assert set(subjects(admin, users=ADMIN.id)) >= {"ann", "ben", "group_research"}


def test_a_search_finds_text_as_it_stands(admin: httpx.Client) -> None:
    assert subjects(admin, search="RESEARCH") == ["group_research"]
    assert subjects(admin, search="Größer") == ["ann"]
    assert subjects(admin, search="100%") == []


def test_nothing_happened_before_yesterday(admin: httpx.Client) -> None:
    assert subjects(admin, endTime="yesterday") == []


def test_a_page_behind_the_last_is_empty(admin: httpx.Client) -> None:
    assert subjects(admin, users="ann", page=2) == []
    assert subjects(admin, users="ann,ben", page=3, pageSize=2) == []


def test_pages(admin: httpx.Client) -> None:
    whole = subjects(admin)
    second = audit_page(admin, page=2, pageSize=1)
    assert [one["event_data"]["subject_id"] for one in second["events"]] == whole[1:2]
    assert second["pagination"]["hasNextPage"]
    assert second["pagination"]["hasPreviousPage"]
    assert audit_page(admin, pageSize=900)["pagination"]["pageSize"] == 500


def test_by_default_the_last_seven_days(admin: httpx.Client, served: Served) -> None:
    whole = subjects(admin)
    with served.control.store.write() as session:
        for entry in session.query(AuditEntry).where(AuditEntry.subject_id == "ann"):
            entry.at -= timedelta(days=8)
    assert "ann" not in subjects(admin)
    assert subjects(admin, startTime="9d") == whole


@pytest.mark.parametrize(
    "question",
    [
        {"startTime": "31d"},
        {"startTime": "now", "endTime": "5h"},
        {"startTime": "soon"},
        {"endTime": "2026-13-01"},
        {"endTime": "99999999999999999999"},
        {"pageSize": 0},
        {"users": "a,b,c", "pageSize": 2},
        {"startDate": 5},
    ],
)
def test_what_cannot_be_asked(admin: httpx.Client, question: dict[str, Any]) -> None:
    answer = admin.get("/teams/audit-logs", params=question)
    assert answer.status_code == 400
    assert answer.json()["error"] == "Bad Request"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-11-21T12:30:00"),
        ("today", "2026-11-21T00:00:00"),
        ("yesterday", "2026-11-20T00:00:00"),
        ("7d", "2026-11-14T12:30:00"),
        ("5h", "2026-11-21T07:30:00"),
        ("300s", "2026-11-21T12:25:00"),
        ("2024-01-15", "2024-01-15T00:00:00"),
        ("2024-01-15T12:00:00Z", "2024-01-15T12:00:00"),
        ("2024-01-15T10:00:00-05:00", "2024-01-15T15:00:00"),
        ("1705315200", "2024-01-15T10:40:00"),
        ("1705315200000", "2024-01-15T10:40:00"),
    ],
)
def test_times_in_every_form(text: str, moment: str) -> None:
    assert parse_moment(text, NOW, "x") == datetime.fromisoformat(moment).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "7w", "-1d", "999999999d", "9" * 30, "9999-01-01", "٣", "0001-01-01T00:00+14:00"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(Refused):
        parse_moment(text, NOW, "x")
