"""`/v1`: idempotency, pages, confirmation, keys, operators' routes."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from api.storage.ledgers import ApiKey
from tests.api.seen import facts
from tests.api.serving import Served, serving
from tests.conftest import MakeSettings

ORG = "/v1/organizations/org_a"
FROM_CLICKHOUSE = ("/v1/organizations/{organization_id}/balances", "/v1/overage")
"""Lists that are tested where there is one."""
HALF_A_PAIR = base64.urlsafe_b64encode(b'{"after": "\\ud800"}').decode()


@pytest.fixture
def served(make_settings: MakeSettings) -> Iterator[Served]:
    with serving(make_settings()) as opened:
        yield opened


@pytest.fixture
def admin(served: Served) -> Iterator[httpx.Client]:
    with served.client("admin") as client:
        yield client


@pytest.fixture
def operator(served: Served) -> Iterator[httpx.Client]:
    with served.client("operator") as client:
        yield client


def test_a_repeated_post_happens_once(admin: httpx.Client, served: Served) -> None:
    key = {"Idempotency-Key": "create-research"}
    first = admin.post(f"{ORG}/groups", json={"name": "Research"}, headers=key)
    again = admin.post(f"{ORG}/groups", json={"name": "Research"}, headers=key)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    other = admin.post(f"{ORG}/groups", json={"name": "Other"}, headers=key)
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert sum("GroupCreated" in repr(record.fact) for record in facts(served.control)) == 1


def test_the_same_key_at_the_same_moment_happens_once(operator: httpx.Client) -> None:
    def create(_: int) -> httpx.Response:
        body, headers = {"id": "org_new", "name": "New"}, {"Idempotency-Key": "one"}
        return operator.post("/v1/organizations", json=body, headers=headers)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(create, range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1


def test_what_was_refused_may_be_tried_again_with_the_same_key(admin: httpx.Client) -> None:
    key = {"Idempotency-Key": "x"}
    body = {"member_ids": ["ann"]}
    group = admin.post(f"{ORG}/groups", json={"name": "R"}).json()["id"]
    assert admin.post(f"{ORG}/groups/{group}/members", json=body, headers=key).status_code == 404
    admin.post(f"{ORG}/members", json={"id": "ann", "email": "ann@example.com"})
    assert admin.post(f"{ORG}/groups/{group}/members", json=body, headers=key).status_code == 200


def test_deleting_needs_the_name_typed(admin: httpx.Client) -> None:
    group = admin.post(f"{ORG}/groups", json={"name": "Research"}).json()["id"]
    assert admin.delete(f"{ORG}/groups/{group}").status_code == 400
    wrong = admin.delete(f"{ORG}/groups/{group}", params={"confirm_name": "research lab"})
    assert wrong.json()["error"]["code"] == "confirmation_differs"
    right = admin.delete(f"{ORG}/groups/{group}", params={"confirm_name": "Research"})
    assert right.status_code == 204


def group_of_three(admin: httpx.Client) -> str:
    """Of five members, the first three are moved into a new group."""
    group: str = admin.post(f"{ORG}/groups", json={"name": "R"}).json()["id"]
    for number in range(5):
        body = {"id": f"m{number}", "email": f"m{number}@example.com"}
        assert admin.post(f"{ORG}/members", json=body).status_code == 201
    moves = [{"member_id": f"m{number}", "group_id": group} for number in range(3)]
    assert admin.post(f"{ORG}/moves", json={"moves": moves}).json() == {"moved": 3}
    return group


def test_moves_are_atomic(admin: httpx.Client) -> None:
    group = group_of_three(admin)
    moves = [{"member_id": "m4", "group_id": place} for place in (group, "group_nowhere")]
    moves[1]["member_id"] = "m0"
    assert admin.post(f"{ORG}/moves", json={"moves": moves}).status_code == 404
    members = admin.get(f"{ORG}/members", params={"group_id": group}).json()["items"]
    assert [row["id"] for row in members] == ["m0", "m1", "m2"]


def test_members_are_listed_by_group(admin: httpx.Client) -> None:
    group = group_of_three(admin)
    seen, cursor = [], ""
    while True:
        query = {"group_id": group, "limit": 2, "cursor": cursor}
        page = admin.get(f"{ORG}/members", params=query).json()
        seen += [row["id"] for row in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert seen == ["m0", "m1", "m2"]


def test_one_member_moves_to_unassigned(admin: httpx.Client) -> None:
    group_of_three(admin)
    one = admin.post(f"{ORG}/members/m0/move", json={"group_id": "group_unassigned"})
    assert one.json()["group_id"] == "group_unassigned"


def walked(client: httpx.Client, path: str) -> list[dict[str, object]]:
    """A list, row by row."""
    rows: list[dict[str, object]] = []
    cursor = ""
    while cursor is not None:
        page = client.get(path, params={"limit": 1, "cursor": cursor}).json()
        assert len(page["items"]) == 1
        rows += page["items"]
        cursor = page["next_cursor"]
    return rows


def test_every_list_is_the_same_page_by_page(
    admin: httpx.Client, operator: httpx.Client, served: Served
) -> None:
    for number in (1, 2):
        email = f"m{number}@example.com"
        group = {"displayName": f"G{number}"}
        with served.client("scim") as scim:
            assert scim.post("/scim/v2/Groups", json=group).status_code == 201
        for path, body in (
            (f"{ORG}/members", {"email": email}),
            (f"{ORG}/websites", {"id": f"web_{number}", "name": "W"}),
            (f"{ORG}/prices", {"meter": "m", "micro_per_million_units": number}),
            ("/v1/prices", {"meter": "d", "micro_per_million_units": number}),
            (f"{ORG}/grants", {"pool_kind": "website", "pool_id": "web_1", "amount_micro": 1}),
            (f"{ORG}/keys", {"scope": "finance", "name": "k"}),
            ("/v1/keys", {"scope": "operator", "name": "k"}),
            ("/v1/packages", {"name": "P", "credits_micro": 1, "price_minor": number}),
        ):
            answer = operator.post(path, json=body)
            assert answer.status_code == 201, answer.text
    paths = operator.get("/openapi.json").json()["paths"]
    lists = [
        path.replace("{organization_id}", "org_a")
        for path, operations in paths.items()
        if path.count("{") <= 1
        and path not in FROM_CLICKHOUSE
        and any(one["name"] == "cursor" for one in operations.get("get", {}).get("parameters", ()))
    ]
    assert len(lists) == 11
    for path in lists:
        whole = operator.get(path, params={"limit": 1000}).json()
        assert len(whole["items"]) >= 2
        assert whole["next_cursor"] is None
        assert walked(operator, path) == whole["items"], path


@pytest.mark.parametrize(
    "cursor", ["x", "e30", "eyJhZnRlciI6MX0", "é", "eyJhZnRlciI6W119", HALF_A_PAIR]
)
def test_a_wrong_cursor_is_refused(admin: httpx.Client, cursor: str) -> None:
    answer = admin.get(f"{ORG}/members", params={"cursor": cursor})
    assert answer.status_code == 400
    assert answer.json()["error"]["where"] == "cursor"


def test_a_secret_is_shown_once(admin: httpx.Client, served: Served) -> None:
    headers = {"Idempotency-Key": "key"}
    body = {"scope": "finance", "name": "export"}
    key = admin.post(f"{ORG}/keys", json=body, headers=headers).json()
    again = admin.post(f"{ORG}/keys", json=body, headers=headers).json()
    assert again == key | {"secret": None}
    with served.control.store.read() as session:
        row = session.get_one(ApiKey, key["id"])
        assert key["secret"] not in repr(vars(row))
    assert "secret" not in admin.get(f"{ORG}/keys").json()["items"][0]


def works(served: Served, secret: str) -> bool:
    return httpx.get(served.url + ORG, auth=(secret, "")).status_code == 200


def test_a_rotated_key_replaces_the_old_one(admin: httpx.Client, served: Served) -> None:
    key = admin.post(f"{ORG}/keys", json={"scope": "finance", "name": "export"}).json()
    assert works(served, key["secret"])
    rotated = admin.post(f"{ORG}/keys/{key['id']}/rotate").json()
    assert works(served, rotated["secret"])
    assert not works(served, key["secret"])


def test_a_revoked_key_opens_nothing(admin: httpx.Client, served: Served) -> None:
    key = admin.post(f"{ORG}/keys", json={"scope": "finance", "name": "export"}).json()
    assert admin.delete(f"{ORG}/keys/{key['id']}").status_code == 204
    assert not works(served, key["secret"])
    assert admin.delete(f"{ORG}/keys/{key['id']}").status_code == 404


def test_no_tenant_makes_an_operator(admin: httpx.Client) -> None:
    refused = admin.post(f"{ORG}/keys", json={"scope": "operator", "name": "root"})
    assert refused.status_code == 400
    assert admin.post("/v1/keys", json={"scope": "operator", "name": "x"}).status_code == 403


PRICE = {"meter": "ai.tokens", "micro_per_million_units": 5}


def grant_for_a_new_group(admin: httpx.Client) -> dict[str, object]:
    group = admin.post(f"{ORG}/groups", json={"name": "R"}).json()["id"]
    return {"id": "g1", "pool_kind": "group", "pool_id": group, "amount_micro": 10}


def test_the_default_book_holds_for_every_organization(
    operator: httpx.Client, admin: httpx.Client, served: Served
) -> None:
    assert operator.post("/v1/prices", json=PRICE).status_code == 201
    assert operator.post(f"{ORG}/prices", json=PRICE).status_code == 201
    books = [row["book"] for row in admin.get(f"{ORG}/prices").json()["items"]]
    assert books == ["default", "organization"]
    for organization_id in ("org_a", "org_b"):
        published = repr([record.fact for record in facts(served.control, organization_id)])
        assert "book='default'" in published


def test_a_grant_is_made_once_and_revoked_once(operator: httpx.Client, admin: httpx.Client) -> None:
    grant = grant_for_a_new_group(admin)
    assert operator.post(f"{ORG}/grants", json=grant).status_code == 201
    assert operator.post(f"{ORG}/grants", json=grant).status_code == 409
    assert operator.post(f"{ORG}/grants/g1/revocations", json={"why": "x"}).status_code == 201
    assert operator.post(f"{ORG}/grants/g1/revocations", json={"why": "x"}).status_code == 409


def test_an_adjustment_says_which_version_of_the_credits_it_is(
    operator: httpx.Client, admin: httpx.Client
) -> None:
    grant = grant_for_a_new_group(admin)
    assert operator.post(f"{ORG}/grants", json=grant).status_code == 201
    adjustment = {
        "pool_kind": "group",
        "pool_id": grant["pool_id"],
        "amount_micro": -5,
        "why": "wrong",
    }
    adjusted = operator.post(f"{ORG}/adjustments", json=adjustment)
    assert adjusted.json() == {"version": 2}


def test_unassigned_has_no_pool(operator: httpx.Client, admin: httpx.Client) -> None:
    grant = grant_for_a_new_group(admin) | {"pool_id": "group_unassigned"}
    assert operator.post(f"{ORG}/grants", json=grant).status_code == 409


def test_the_operator_changes_settings(operator: httpx.Client) -> None:
    changed = operator.patch(ORG, json={"billing_anchor_day": 31, "time_zone": "Europe/Berlin"})
    assert changed.json()["billing_anchor_day"] == 31
    assert operator.patch(ORG, json={"time_zone": "Mars/Base"}).status_code == 400


def test_no_tenant_sets_prices_grants_and_settings(admin: httpx.Client) -> None:
    for path, body in (("/prices", PRICE), ("/grants", grant_for_a_new_group(admin))):
        assert admin.post(ORG + path, json=body).status_code == 403
    assert admin.patch(ORG, json={"credit_price_micro": 0}).status_code == 403


def test_too_many_requests_are_told_when_to_come_back(make_settings: MakeSettings) -> None:
    with serving(make_settings(), rate_per_minute=3) as served, served.client("finance") as one:
        statuses = [one.get(ORG).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        wait = int(one.get(ORG).headers["Retry-After"])
        assert 1 <= wait <= 60
        with served.client("finance", "org_b") as other:
            assert other.get("/v1/organizations/org_b").status_code == 200


def test_guessing_keys_is_slowed_down(make_settings: MakeSettings) -> None:
    with serving(make_settings(), failed_logins_per_minute=5) as served:
        answers = [httpx.get(served.url + ORG, auth=(f"mtr_{n}", "")) for n in range(8)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
        assert "WWW-Authenticate" in answers[0].headers


def test_a_body_that_is_too_large_is_refused(admin: httpx.Client) -> None:
    answer = admin.post(f"{ORG}/groups", content=b"x" * 1_100_000)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_what_is_there_already_and_what_is_not_is_told_by_its_field(operator: httpx.Client) -> None:
    grant = {"id": "g1", "pool_kind": "website", "pool_id": "nowhere", "amount_micro": 1}
    unknown = operator.post(f"{ORG}/grants", json=grant).json()["error"]
    assert (unknown["code"], unknown["where"]) == ("not_found", "pool_id")
    operator.post(f"{ORG}/websites", json={"id": "nowhere", "name": "here.example"})
    again = operator.post(f"{ORG}/websites", json={"id": "nowhere", "name": "b.example"})
    assert again.json()["error"]["what_to_do"]
    assert operator.post(f"{ORG}/grants", json=grant).status_code == 201
    twice = operator.post(f"{ORG}/grants", json=grant).json()["error"]
    assert (twice["code"], twice["where"]) == ("grant_exists", "id")
    assert twice["what_to_do"]


@pytest.mark.parametrize("amount", [True, "1", 1.0])
def test_an_amount_is_a_whole_number_and_nothing_like_one(
    operator: httpx.Client, amount: object
) -> None:
    grant = {"pool_kind": "group", "pool_id": "group_a", "amount_micro": amount}
    price = {"meter": "pages", "micro_per_million_units": amount}
    for path, body, field in (
        ("grants", grant, "amount_micro"),
        ("prices", price, "micro_per_million_units"),
    ):
        answer = operator.post(f"{ORG}/{path}", json=body)
        assert (answer.status_code, answer.json()["error"]["where"]) == (400, f"body.{field}")


def test_a_body_that_is_no_json_is_told_where_and_how_to_send_it(admin: httpx.Client) -> None:
    groups = f"{ORG}/groups"
    as_json = {"Content-Type": "application/json"}
    broken = admin.post(groups, content=b'{"name":', headers=as_json)
    assert broken.status_code == 400
    assert broken.json()["error"]["where"] == "body"
    assert broken.json()["error"]["message"] == "body is not JSON from its character 8 on."
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    as_curl_sends_it = admin.post(groups, content=b'{"name": "Lab"}', headers=form)
    assert as_curl_sends_it.status_code == 400
    assert as_curl_sends_it.json()["error"]["message"] == "body is not sent as JSON."
    assert "Content-Type: application/json" in as_curl_sends_it.json()["error"]["what_to_do"]


def test_every_key_expires(admin: httpx.Client) -> None:
    key = admin.post(f"{ORG}/keys", json={"scope": "finance", "name": "export"}).json()
    lives = datetime.fromisoformat(key["expires_at"]) - datetime.fromisoformat(key["created_at"])
    assert lives == timedelta(days=365)


def test_a_rotated_key_lives_as_long_as_was_stated(admin: httpx.Client) -> None:
    soon = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    short = {"scope": "finance", "name": "export", "expires_at": soon}
    stated = admin.post(f"{ORG}/keys", json=short).json()
    rotated = admin.post(f"{ORG}/keys/{stated['id']}/rotate").json()
    assert datetime.fromisoformat(rotated["expires_at"]) >= datetime.fromisoformat(soon)


def test_an_expired_key_opens_nothing(admin: httpx.Client, served: Served) -> None:
    key = admin.post(f"{ORG}/keys", json={"scope": "finance", "name": "export"}).json()
    with served.control.store.write() as session:
        session.get_one(ApiKey, key["id"]).expires_at = datetime.now(UTC)
    assert httpx.get(served.url + ORG, auth=(key["secret"], "")).status_code == 401


def test_keys_that_expire_soon_are_counted(admin: httpx.Client, served: Served) -> None:
    soon = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    body = {"scope": "finance", "name": "export", "expires_at": soon}
    assert admin.post(f"{ORG}/keys", json=body).status_code == 201
    metrics = httpx.get(f"{served.url}/metrics").text
    assert "metering_api_keys_expiring 1.0" in metrics
