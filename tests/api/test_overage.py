"""Overage by HTTP: of one organization, of all in pages, and as CSV."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from api.rules.organizations import OrganizationSettings, create_organization
from api.web import v1_overage
from tests.api.rated import RatedRow, insert_rated
from tests.api.serving import SETUP, Served, serving
from tests.conftest import MakeSettings
from warehouse.migrations import migrate

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
LATE = datetime(2026, 11, 20, 12, tzinfo=UTC)
ORG = "/v1/organizations/org_a"


@pytest.fixture
def served(clickhouse: object, make_settings: MakeSettings) -> Iterator[Served]:
    """Three organizations; `org_c` counts from the 15th, and its name would be a formula."""
    settings = make_settings()
    migrate(settings)
    with serving(settings) as opened:
        opened.control.clock = lambda: NOW
        with opened.control.transaction(SETUP) as transaction:
            create_organization(
                transaction,
                "=SUM(A1)",
                OrganizationSettings(billing_anchor_day=15),
                "org_c",
                datetime(2026, 1, 1, tzinfo=UTC),
            )
        rows = [
            RatedRow("e1", "ann", "group_x", NOW, 1_000_007, 1_000_000),
            RatedRow("e2", "ann", "group_x", LATE, 5, 0),
        ]
        insert_rated(settings, rows, "org_a")
        insert_rated(settings, [RatedRow("e3", "cid", "", NOW, 3, 3)], "org_c")
        insert_rated(settings, [RatedRow("e4", "cid", "", LATE, 4, 4)], "org_c")
        yield opened


def test_of_one_organization(served: Served) -> None:
    with served.client("finance") as client:
        answer = client.get(f"{ORG}/overage", params={"period": "2026-11"}).json()
        assert answer == {
            "start": "2026-11-01T00:00:00.000Z",
            "end": "2026-12-01T00:00:00.000Z",
            "time_zone": "UTC",
            "items": [
                {
                    "organization_id": "org_a",
                    "organization_name": "org_a",
                    "start": "2026-11-01T00:00:00.000Z",
                    "end": "2026-12-01T00:00:00.000Z",
                    "time_zone": "UTC",
                    "currency": "USD",
                    "events": 1,
                    "overage_micro": 1_000_000,
                    "overage_credits": "1.00",
                    "money": "0.01",
                }
            ],
        }
        assert client.get(f"{ORG}/overage").json() == answer
        other = client.get(f"{ORG}/overage", params={"period": "2026-10"}).json()
        assert other["items"] == []


def test_of_all_organizations_in_pages(served: Served) -> None:
    with served.client("operator") as client:
        whole = client.get("/v1/overage", params={"period": "2026-11"}).json()
        assert [
            (each["organization_id"], each["start"][:10], each["overage_micro"])
            for each in whole["items"]
        ] == [("org_a", "2026-11-01", 1_000_000), ("org_c", "2026-11-15", 4)]
        items, cursor, pages = [], "", 0
        while cursor is not None:
            parameters = {"period": "2026-11", "limit": 1, "cursor": cursor}
            page = client.get("/v1/overage", params=parameters).json()
            items, cursor, pages = items + page["items"], page["next_cursor"], pages + 1
        assert (items, pages) == (whole["items"], 3)
        october = client.get("/v1/overage", params={"period": "2026-10"}).json()
        assert [each["overage_micro"] for each in october["items"]] == [3]


def as_csv(client: httpx.Client, **headers: str) -> list[dict[str, str]]:
    parameters = {"period": "2026-11"} | ({} if headers else {"format": "csv"})
    answer = client.get("/v1/overage", params=parameters, headers=headers)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


@pytest.mark.parametrize("at_once", [1, 2, 3, 1_000])
def test_as_csv_whole(served: Served, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(v1_overage, "ORGANIZATIONS_AT_ONCE", at_once)
    with served.client("operator") as client:
        rows = as_csv(client)
        assert rows == as_csv(client, accept="text/csv")
        items = client.get("/v1/overage", params={"period": "2026-11"}).json()["items"]
    assert [row["organization_name"] for row in rows] == ["org_a", "'=SUM(A1)"]
    for row, item in zip(rows, items, strict=True):
        unguarded = row | {"organization_name": row["organization_name"].removeprefix("'")}
        assert unguarded == {name: str(value) for name, value in item.items()}


@pytest.mark.parametrize("period", ["", "November", "2026-13", "2026-11-02..2026-11-01", "x" * 33])
def test_what_is_no_period_is_refused(served: Served, period: str) -> None:
    with served.client("operator") as client:
        for path in ("/v1/overage", f"{ORG}/overage"):
            answer = client.get(path, params={"period": period})
            assert answer.status_code == 400
            assert answer.json()["error"]["where"] == "query.period"
        assert client.get("/v1/overage").status_code == 400


def test_a_cursor_and_csv_do_not_go_together(served: Served) -> None:
    with served.client("operator") as client:
        parameters = {"period": "2026-11", "format": "csv", "cursor": "x"}
        assert client.get("/v1/overage", params=parameters).status_code == 400


@pytest.mark.parametrize("scope", ["admin", "group_admin", "finance"])
def test_only_operators_ask_for_all(served: Served, scope: str) -> None:
    with served.client(scope) as client:
        assert client.get("/v1/overage", params={"period": "2026-11"}).status_code == 403
        assert client.get(f"{ORG}/overage").status_code == 200
        assert client.get("/v1/organizations/org_c/overage").status_code == 404


def test_without_clickhouse_csv_is_unavailable_too(make_settings: MakeSettings) -> None:
    with (
        serving(make_settings(clickhouse_url="http://127.0.0.1:1")) as served,
        served.client("operator") as client,
    ):
        for form in ("json", "csv"):
            answer = client.get("/v1/overage", params={"period": "2026-11", "format": form})
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                503,
                "spend_unavailable",
            )
