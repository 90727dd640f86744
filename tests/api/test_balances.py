"""What is left of credits by HTTP: `/v1/…/balances`, and AthenaHQ's shapes."""

import base64
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from api.rules.groups import create_group, delete_group
from api.rules.keys import Scope, create_key
from api.rules.organizations import OrganizationSettings, create_organization
from api.rules.websites import create_website
from schemas import codec
from schemas.records import MICRO
from schemas.settings import Settings
from tests.api.serving import SETUP, Served, serving
from tests.conftest import MakeSettings
from tests.decisions.worker import ORG, T0
from tests.warehouse.playing import Playing
from warehouse.connection import connect
from warehouse.migrations import migrate

BASE = f"/v1/organizations/{ORG}"
MS = 1000


class Shop:
    """The API over a ClickHouse with a played scenario in it."""

    def __init__(self, settings: Settings, served: Served) -> None:
        self.served = served
        self._settings = settings
        served.control.clock = lambda: self.playing.worker.now
        self.playing = Playing()
        with served.control.transaction(SETUP) as transaction:
            change = create_organization(transaction, "Seven", OrganizationSettings(), ORG)
            for group_id in ("a", "b"):
                create_group(change, group_id.upper(), group_id=group_id)
            create_website(change, "shop.example", "b", "web_3")

    def play(self, scenario: str) -> None:
        self.playing.play(scenario)
        client = connect(self._settings)

        def put(table: str, records: Any) -> None:
            client.raw_insert(
                table,
                insert_block=b"\n".join(codec.encode(record) for record in records),
                fmt="JSONEachRow",
                settings={"date_time_input_format": "best_effort"},
            )

        self.playing.put_into(put)
        client.close()

    def client(self, scope: str = "finance") -> httpx.Client:
        return self.served.client(scope, ORG)


@pytest.fixture
def shop(clickhouse: object, make_settings: MakeSettings) -> Iterator[Shop]:
    settings = make_settings()
    migrate(settings)
    with serving(settings) as served:
        yield Shop(settings, served)


SCENARIO = """
    grant m 300000000 a monthly until=+30h
    grant g 200500000 a
    grant w 50 web_3
    use 100000000
    at web_3 use 20
"""


def test_every_pool_is_shown_and_in_pages(shop: Shop) -> None:
    shop.play(SCENARIO + "grant h 5 b\n")
    with shop.client("group_admin") as client:
        whole = client.get(f"{BASE}/balances").json()
        assert whole["next_cursor"] is None
        group, other, website = whole["items"]
        assert group == {
            "pool_kind": "group",
            "pool_id": "a",
            "name": "A",
            "is_deleted": False,
            "monthly": {
                "total_micro": 300_000_000,
                "used_micro": 100_000_000,
                "remaining_micro": 200_000_000,
                "next_reset_at": "2026-11-02T18:00:00.000Z",
            },
            "one_time": {
                "total_micro": 200_500_000,
                "used_micro": 0,
                "remaining_micro": 200_500_000,
            },
            "debt_micro": 0,
            "balance_micro": 400_500_000,
            "upcoming_micro": 0,
            "expired_micro": 0,
        }
        assert (other["pool_id"], website["pool_id"]) == ("b", "web_3")
        assert website["name"] == "shop.example"
        assert website["one_time"] == {"total_micro": 50, "used_micro": 20, "remaining_micro": 30}
        first = client.get(f"{BASE}/balances", params={"limit": 2}).json()
        rest = client.get(f"{BASE}/balances", params={"cursor": first["next_cursor"]}).json()
        assert first["items"] + rest["items"] == whole["items"]
        chosen = client.get(f"{BASE}/balances", params={"pool_kind": "website"}).json()
        assert chosen["items"] == [website]
        chosen = client.get(f"{BASE}/balances", params={"pool_id": "b"}).json()
        assert chosen["items"] == [other]


def test_a_pool_by_grant_in_pages(shop: Shop) -> None:
    shop.play(SCENARIO + "revoke m 250000000\n")
    with shop.client() as client:
        whole = client.get(f"{BASE}/groups/a/balance").json()
        assert whole["debt_micro"] == 50_000_000
        assert {each["id"]: each["state"] for each in whole["grants"]} == {
            "m": "used",
            "g": "live",
        }
        assert whole["grants"][0] == {
            "id": "m",
            "kind": "monthly",
            "source": "admin:x",
            "state": "used",
            "effective_at": "2026-11-01T12:00:00.000Z",
            "expires_at": "2026-11-02T18:00:00.000Z",
            "issued_micro": 300_000_000,
            "repaid_micro": 0,
            "revoked_micro": 250_000_000,
            "owed_micro": 50_000_000,
            "forfeited_micro": 0,
            "adjusted_micro": 0,
            "used_micro": 100_000_000,
            "remaining_micro": 0,
        }
        first = client.get(f"{BASE}/groups/a/balance", params={"limit": 1}).json()
        rest = client.get(f"{BASE}/groups/a/balance", params={"cursor": first["next_cursor"]})
        assert first["grants"] + rest.json()["grants"] == whole["grants"]
        assert rest.json()["next_cursor"] is None
        website = client.get(f"{BASE}/websites/web_3/balance").json()
        assert [each["remaining_micro"] for each in website["grants"]] == [30]


def test_a_pool_without_credits_is_all_zeros(shop: Shop) -> None:
    with shop.client() as client:
        empty = client.get(f"{BASE}/groups/b/balance").json()
    assert empty["monthly"] == {
        "total_micro": 0,
        "used_micro": 0,
        "remaining_micro": 0,
        "next_reset_at": None,
    }
    assert (empty["grants"], empty["debt_micro"], empty["next_cursor"]) == ([], 0, None)


def test_a_deleted_group_is_listed_as_such_and_has_no_page(shop: Shop) -> None:
    shop.play(SCENARIO + "delete a\n")
    with shop.served.control.change(ORG, SETUP) as change:
        delete_group(change, "a", "A")
    with shop.client() as client:
        listed = client.get(f"{BASE}/balances", params={"pool_id": "a"}).json()["items"]
        assert [(each["is_deleted"], each["balance_micro"]) for each in listed] == [(True, 0)]
        for path in ("groups/a/balance", "websites/x/balance"):
            assert client.get(f"{BASE}/{path}").status_code == 404
        assert client.get(f"{BASE}/groups/group_unassigned/balance").status_code == 409


@pytest.mark.parametrize(
    "after",
    ["x", 3, [1, 2], ["pool", "a"], ["group"], [-1, "a"], ["group", "\ud800"], [1, "\ud800"], {}],
)
@pytest.mark.parametrize("path", ["balances", "groups/a/balance"])
def test_what_is_no_cursor_is_refused(shop: Shop, path: str, after: Any) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps({"after": after}).encode()).decode()
    with shop.client() as client:
        answer = client.get(f"{BASE}/{path}", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["error"]["where"]) == (400, "cursor")


@pytest.mark.parametrize("pool_id", ["\\", "'", "\t", "\0", "{x:String}", "ä\U0001f600", "\\N"])
def test_any_text_may_be_asked_for(shop: Shop, pool_id: str) -> None:
    with shop.client() as client:
        answer = client.get(f"{BASE}/balances", params={"pool_id": pool_id})
    assert (answer.status_code, answer.json()["items"]) == (200, [])


def test_a_key_of_one_group_sees_its_own_pools_by_grant(shop: Shop) -> None:
    with shop.served.control.transaction(SETUP) as transaction:
        secret = create_key(transaction, Scope.GROUP_ADMIN, "b's", ORG, group_id="b").secret
    with httpx.Client(base_url=shop.served.url, auth=(secret, "")) as client:
        seen = {
            path: client.get(f"{BASE}/{path}/balance").status_code
            for path in ("groups/a", "groups/b", "websites/web_3", "websites/web_4")
        }
    assert list(seen.values()) == [404, 200, 200, 404]


def credits(shop: Shop, what: str, key: str, **parameters: str) -> httpx.Response:
    """As AthenaHQ's clients ask."""
    return httpx.get(
        f"{shop.served.url}/api/v1/credits/{what}", params=parameters, headers={"x-api-key": key}
    )


def test_athenas_shapes(shop: Shop) -> None:
    shop.play(SCENARIO)
    key = shop.served.key("admin", ORG)
    reset_ms = int(T0.timestamp()) * MS + 30 * 3600 * MS
    group = credits(shop, "group", key, group_id="a")
    assert group.text == (
        '{"credits":{"total":400.5,"monthly":{"balance":200,"next_reset_at":'
        f'{reset_ms}}},"one_off":{{"balance":200.5}}}}}}'
    )
    website = credits(shop, "website", key, website_id="web_3")
    assert website.text == (
        '{"credits":{"total":0.00003,"monthly":{"balance":0,"next_reset_at":null},'
        '"one_off":{"balance":0.00003}}}'
    )
    whole = json.loads(credits(shop, "organization", key).text, parse_float=Decimal)
    assert whole["credits"]["total"] == Decimal("400.50003")
    assert whole["credits"]["monthly"] == {"balance": 200, "next_reset_at": reset_ms}


def test_athenas_numbers_are_exact(shop: Shop) -> None:
    shop.play(f"grant g {2**62 + 1} a\n")
    answer = credits(shop, "organization", shop.served.key("finance", ORG))
    total = json.loads(answer.text, parse_float=Decimal)["credits"]["total"]
    assert total == Decimal(2**62 + 1) / MICRO


def test_the_key_in_its_own_header_opens_these_paths_only(shop: Shop) -> None:
    key = shop.served.key("admin", ORG)
    for path in (f"{BASE}/balances", "/teams/groups", "/api/v1/credits", "/api/v1/credits/x"):
        answer = httpx.get(f"{shop.served.url}{path}", headers={"x-api-key": key})
        assert answer.status_code == 401, path
    for wrong in ({"x-api-key": "mtr_wrong"}, {"x-api-key": ""}, {}):
        answer = httpx.get(f"{shop.served.url}/api/v1/credits/website?what", headers=wrong)
        assert answer.status_code == 401
    with shop.client() as client:
        assert client.get("/api/v1/credits/organization").status_code == 200


@pytest.mark.parametrize(
    ("scope", "organization_id"),
    [("operator", None), ("ingest", ORG), ("ingest", None), ("scim", ORG), ("group_admin", ORG)],
)
def test_only_admins_and_finance_ask_for_credits(
    shop: Shop, scope: str, organization_id: str | None
) -> None:
    answer = credits(shop, "organization", shop.served.key(scope, organization_id))
    assert answer.status_code == 403


def test_what_is_not_the_organizations_is_not_found(shop: Shop) -> None:
    key = shop.served.key("finance", "org_a")
    assert credits(shop, "group", key, group_id="a").status_code == 404
    answer = credits(shop, "website", key, website_id="web_3")
    assert answer.json()["error"]["where"] == "website_id"
    assert credits(shop, "website", key).status_code == 400
    assert credits(shop, "website", key, website="web_3").status_code == 400
    assert credits(shop, "organization", key).json()["credits"]["total"] == 0
    with shop.served.client("admin", "org_a") as client:
        assert client.get(f"{BASE}/balances").status_code == 404


def test_without_clickhouse_it_is_unavailable(make_settings: MakeSettings) -> None:
    with serving(make_settings(clickhouse_url="http://127.0.0.1:1")) as served:
        key = served.key("finance", "org_a")
        answer = httpx.get(f"{served.url}/api/v1/credits/organization", headers={"x-api-key": key})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "spend_unavailable")
        with served.client("finance") as client:
            assert client.get("/v1/organizations/org_a/balances").status_code == 503
