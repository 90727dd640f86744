"""No key touches another organization's anything; no answer tells what is inside."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from api.app import openapi
from api.web.gate import is_open
from schemas.settings import Settings
from tests.api.serving import Served, serving
from tests.conftest import MakeSettings

BODIES: dict[str, Any] = {
    "POST /teams/groups/{}/members": {"userIds": ["victim"]},
    "DELETE /teams/groups/{}/members": {"userIds": ["victim"]},
    "PATCH /teams/groups/{}": {"name": "Stolen"},
    "groups": {"name": "Stolen"},
    "members": {"email": "x@example.com", "member_ids": ["victim"]},
}
IDS = {
    "groupId": "group_victim",
    "group_id": "group_victim",
    "member_id": "victim",
    "user_id": "victim",
    "website_id": "web_victim",
    "grant_id": "grant_victim",
    "key_id": "key_victim",
    "package_id": "pkg_victim",
    "purchase_id": "buy_victim",
    "subscription_id": "buy_victim",
    "alias": "victim@example.com",
    "organization_id": "org_b",
    "name": "User",
}
SCOPES = ("admin", "group_admin", "finance", "ingest", "scim")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi(Settings())


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


@pytest.fixture
def served(make_settings: MakeSettings) -> Iterator[Served]:
    with serving(make_settings(), failed_logins_per_minute=10_000) as opened:
        with opened.client("operator") as operator:
            base = "/v1/organizations/org_b"
            for path, body in {
                "/groups": {"id": "group_victim", "name": "Victim's"},
                "/members": {"id": "victim", "email": "victim@example.com"},
                "/websites": {"id": "web_victim", "name": "victim.example.com"},
            }.items():
                assert operator.post(base + path, json=body).status_code == 201
            moved = {"moves": [{"member_id": "victim", "group_id": "group_victim"}]}
            assert operator.post(base + "/moves", json=moved).status_code == 200
        yield opened


def everything(served: Served) -> str:
    """All of the victim that can be seen."""
    with served.client("operator") as operator:
        base = "/v1/organizations/org_b"
        paths = ("", "/members", "/websites", "/keys", "/audit", "/prices", "/grants")
        bodies = [operator.get(base + path).text for path in (*paths, "/groups/group_victim")]
    return json.dumps(bodies)


def body_for(path: str) -> dict[str, Any]:
    kind = next((name for name in ("members", "groups") if path.endswith(name)), "")
    teams = {"userIds": ["victim"]} if path.startswith("/teams") and kind == "members" else None
    return teams or BODIES.get(kind, {"name": "x", "group_id": "group_victim"})


def test_every_route_with_a_foreign_key(served: Served, document: dict[str, Any]) -> None:
    before = everything(served)
    clients = [served.client(scope, "org_a") for scope in SCOPES]
    walked = 0
    for method, path, _ in operations(document):
        if is_open(path):
            continue
        url = path
        for name, value in IDS.items():
            url = url.replace(f"{{{name}}}", value)
        for client in clients:
            answer = client.request(method, url, json=body_for(path))
            walked += 1
            text = answer.text.lower()
            assert answer.status_code < 500 or answer.status_code == 503, (method, url, text)
            assert "victim" not in re.sub(r"no [a-z ]+'[^']*'", "", text), (method, url, text)
            if "organization_id" in path:
                assert answer.status_code == 404, (method, url, client, text)
    for client in clients:
        client.close()
    assert walked > 200
    assert everything(served) == before


def test_every_route_wants_a_key(served: Served, document: dict[str, Any]) -> None:
    for method, path, _ in operations(document):
        if is_open(path):
            continue
        url = re.sub(r"\{\w+\}", "x", path)
        for headers in ({}, {"Authorization": "Basic !!"}, {"Authorization": "Bearer mtr_wrong"}):
            answer = httpx.request(method, served.url + url, headers=headers, json={})
            assert answer.status_code == 401, (method, url, answer.text)


def test_a_tenant_never_reaches_what_is_the_operators(
    served: Served, document: dict[str, Any]
) -> None:
    for scope in SCOPES:
        with served.client(scope, "org_a") as client:
            for method, path in (
                ("POST", "/v1/organizations"),
                ("GET", "/v1/organizations"),
                ("PATCH", "/v1/organizations/org_a"),
                ("POST", "/v1/prices"),
                ("POST", "/v1/organizations/org_a/prices"),
                ("POST", "/v1/organizations/org_a/grants"),
                ("POST", "/v1/organizations/org_a/grants/x/revocations"),
                ("POST", "/v1/organizations/org_a/adjustments"),
                ("GET", "/v1/keys"),
                ("POST", "/v1/keys"),
                ("GET", "/v1/packages"),
                ("POST", "/v1/packages"),
                ("PATCH", "/v1/packages/pkg_1"),
            ):
                assert client.request(method, path, json={}).status_code == 403, (scope, path)


def test_readers_cannot_write(served: Served) -> None:
    base = "/v1/organizations/org_a"
    with served.client("finance") as finance:
        assert finance.get(base + "/members").status_code == 200
        for path in ("/groups", "/moves", "/members", "/websites", "/keys", "/groups/csv"):
            assert finance.post(base + path, json={}).status_code == 403, path
        assert finance.post("/teams/groups", json={"name": "x"}).status_code == 403
    with served.client("group_admin") as group_admin:
        assert group_admin.post(base + "/groups", json={"name": "x"}).status_code == 201
        for path in ("/members", "/websites", "/keys"):
            assert group_admin.post(base + path, json={}).status_code == 403, path


def test_the_document_is_valid_and_complete(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)
    for method, path, operation in operations(document):
        assert operation.get("summary"), (method, path)
        if is_open(path):
            continue
        assert {"401", "403", "429"} <= set(operation["responses"]), (method, path)
        assert operation.get("security"), (method, path)


def test_a_bug_tells_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("api.web.v1_members.shown_member", broken)
    with served.client("operator") as operator:
        answer = operator.get("/v1/organizations/org_b/members")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.json()["error"]["code"] == "internal_error"


def test_the_docs_load_nothing_from_elsewhere(served: Served) -> None:
    page = httpx.get(f"{served.url}/docs")
    assert page.status_code == 200
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert any(path.endswith(".js") for path in loaded)
    for path in loaded:
        assert path.startswith("/"), path
        assert httpx.get(f"{served.url}{path}").status_code == 200, path
