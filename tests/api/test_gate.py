"""What comes before a handler: the key, the rate, parameters, the body's size and pace."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from fastapi import Request
from fastapi.routing import iter_route_contexts

from api import server
from api.options import ApiOptions
from api.web import admission, gate
from api.web.admission import KeyedRoute
from api.web.context import Allow
from api.web.gate import is_open
from schemas.settings import Settings
from tests.api.serving import Served, serving
from tests.conftest import MakeSettings

ORG = "/v1/organizations/org_a"
PATIENCE_S = 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("gate"))
    with serving(settings, public_url="https://billing.example.com/api") as opened:
        yield opened


@pytest.fixture(scope="module")
def admin(served: Served) -> Iterator[httpx.Client]:
    with served.client("admin") as client:
        yield client


def raw_answer(served: Served, sent: bytes) -> bytes:
    """What comes back until the server closes, or a moment passes without more."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        answer = connection.recv(65_536)
        while answer and b"\r\n\r\n" not in answer:
            answer += connection.recv(65_536)
    return answer


def head(method: str, path: str, key: str = "", length: int = 33_554_432) -> bytes:
    """A request's head that promises a body, which is never sent."""
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: text/csv\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", f"{ORG}/groups/csv"), ("POST", "/nothing/csv"), ("GET", "/x"), ("TRACE", ORG)],
)
def test_without_a_key_nothing_is_read_or_told(served: Served, method: str, path: str) -> None:
    assert raw_answer(served, head(method, path)).startswith(b"HTTP/1.1 401 ")
    assert httpx.request(method, served.url + path).status_code == 401


def test_a_key_that_may_not_write_sends_no_body(served: Served) -> None:
    key = served.key("finance", "org_a")
    answer = raw_answer(served, head("POST", f"{ORG}/groups/csv", key))
    assert answer.startswith(b"HTTP/1.1 403 ")
    other = raw_answer(served, head("POST", "/v1/organizations/org_b/groups/csv", key))
    assert other.startswith(b"HTTP/1.1 404 ")


def test_only_the_csv_takes_files(served: Served, admin: httpx.Client) -> None:
    large = b"x" * 2_000_000
    assert admin.post(f"{ORG}/groups/csv", content=large).json()["error"]["where"] == "line 1"
    # A group may be called `csv`, and nothing of it is a file.
    assert admin.patch(f"{ORG}/groups/csv", content=large).status_code == 413


@pytest.mark.parametrize(
    ("scope", "path"),
    [("admin", f"{ORG}/groups"), ("admin", "/teams/groups"), ("scim", "/scim/v2/Users")],
)
def test_a_body_in_chunks_is_bounded_too(served: Served, scope: str, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    with served.client(scope) as client:
        answer = client.post(path, content=iter([b"[" * 65_536] * 20), headers=headers)
    assert answer.status_code == 413, answer.text
    assert "1048576 bytes" in answer.text


def test_who_sends_too_slowly_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "GRACE_S", 0.05)
    key = served.key("admin", "org_a")
    answer = raw_answer(served, head("POST", f"{ORG}/groups", key, length=100) + b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"too_slow" in answer or b"connection: close" in answer.lower()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_who_never_asks_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.05)
    assert raw_answer(served, sent) == b""


def test_what_is_refused_counts(make_settings: MakeSettings) -> None:
    with serving(make_settings(), rate_per_minute=3) as served, served.client("finance") as one:
        paths = ("/v1/organizations/org_b", "/v1/keys", "/nowhere", ORG)
        assert [one.get(path).status_code for path in paths] == [404, 403, 404, 429]


def test_too_many_at_once_are_told_to_come_back(
    served: Served, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "REQUESTS_AT_ONCE_MAX", 0)
    for path in (ORG, "/teams/groups", "/scim/v2/Users"):
        answer = admin.get(path)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert httpx.get(f"{served.url}/health/ready/control-plane").status_code == 200


def test_unknown_parameters_are_refused(served: Served, admin: httpx.Client) -> None:
    for path in (f"{ORG}/members", f"{ORG}/directory-groups", "/teams/groups"):
        answer = admin.get(path, params={"search": "ann"})
        assert answer.status_code == 400, path
        assert "'search'" in answer.text
    with served.client("scim") as scim:
        assert scim.get("/scim/v2/Users", params={"sortBy": "userName"}).status_code == 200


def test_an_idempotency_key_works_or_is_refused(admin: httpx.Client) -> None:
    key = {"Idempotency-Key": "one"}
    answers = [admin.post("/teams/groups", json={"name": "G"}, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    admin.post(f"{ORG}/members", json={"id": "ann", "email": "ann@example.com"})
    group, ann = f"/teams/groups/{answers[0].json()['group']['id']}", {"userIds": ["ann"]}
    key = {"Idempotency-Key": "two"}
    added = [admin.post(f"{group}/members", json=ann, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in added] == [200, 200]
    for answer in (
        admin.patch(group, json={"name": "H"}, headers=key),
        admin.delete(group, headers=key),
        admin.post("/teams/spend", json={}, headers=key),
    ):
        assert answer.status_code == 400
        assert answer.json()["where"] == "Idempotency-Key"


def test_answers_tell_browsers_and_caches(served: Served, admin: httpx.Client) -> None:
    secret = admin.post(f"{ORG}/keys", json={"scope": "finance", "name": "x"})
    refused = httpx.get(served.url + ORG)
    for answer in (secret, refused):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "max-age" in answer.headers["Strict-Transport-Security"]
    docs = httpx.get(f"{served.url}/docs")
    assert "frame-ancestors 'none'" in docs.headers["Content-Security-Policy"]


@pytest.mark.parametrize(("proxies", "statuses"), [("", [401, 429]), ("127.0.0.0/8", [401, 401])])
def test_forwarded_addresses_are_believed_of_proxies_only(
    make_settings: MakeSettings, proxies: str, statuses: list[int]
) -> None:
    limits = {"failed_logins_per_minute": 1, "trusted_proxies": proxies}
    with serving(make_settings(), **limits) as served:
        answers = [
            httpx.get(served.url + ORG, headers={"X-Forwarded-For": f"192.0.2.{number}"})
            for number in (1, 2)
        ]
    assert [answer.status_code for answer in answers] == statuses


def test_locations_are_the_configured_ones(served: Served) -> None:
    user = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "u@example.com"}
    with served.client("scim") as scim:
        answer = scim.post("/scim/v2/Users", json=user, headers={"Host": "evil.example.com"})
    expected = f"https://billing.example.com/api/scim/v2/Users/{answer.json()['id']}"
    assert answer.headers["Location"] == answer.json()["meta"]["location"] == expected


def test_an_alias_with_a_slash_can_be_deleted(admin: httpx.Client) -> None:
    admin.post(f"{ORG}/members", json={"id": "ben", "email": "ben@example.com"})
    aliases = f"{ORG}/members/ben/aliases"
    assert admin.post(aliases, json={"alias": "a/b/c@example.com"}).status_code == 201
    assert admin.delete(f"{aliases}/a%2Fb%2Fc@example.com").status_code == 204
    assert admin.get(aliases).json()["aliases"] == ["ben@example.com"]


def test_half_a_surrogate_pair_is_refused_everywhere(admin: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b'{"\\ud800": 1}', b'{"name": "\\ud800"}', b'{"id": "\\udfff", "name": "x"}'):
        for path in (f"{ORG}/groups", "/teams/groups"):
            answer = admin.post(path, content=body, headers=headers)
            assert answer.status_code == 400, (path, body, answer.text)


def test_every_route_is_open_or_keyed(served: Served) -> None:
    for context in iter_route_contexts(served.app.routes):
        path = context.path or ""
        if path.startswith(("/v1/", "/api/v1/", "/teams/", "/scim/")):
            assert isinstance(context.original_route, KeyedRoute), path
        else:
            assert is_open(path) or path.startswith(("/docs", "/openapi", "/static")), path


async def test_a_dependency_without_its_route_lets_nobody_in() -> None:
    request = Request({"type": "http", "path": "/x", "headers": [], "state": {"caller": object()}})
    with pytest.raises(RuntimeError, match="not admitted"):
        await Allow(frozenset(), "api")(request)


@pytest.mark.parametrize(
    "wrong", [{"trusted_proxies": "10.0.0.1, everybody"}, {"public_url": "https://u:p@x?key=1"}]
)
def test_wrong_addresses_stop_at_the_start(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ApiOptions.model_validate(wrong)
