"""A user's manager in every form that Okta and Entra send; and refusals in words of ours."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.scim_traffic import ENTERPRISE, GROUP, PATCH, USER, patch, user
from tests.api.serving import serving
from tests.conftest import MakeSettings


@pytest.fixture
def idp(make_settings: MakeSettings) -> Iterator[httpx.Client]:
    with serving(make_settings()) as served:
        headers = {"Authorization": f"Bearer {served.key('scim', 'org_a')}"}
        with httpx.Client(base_url=f"{served.url}/scim/v2", headers=headers, timeout=30) as client:
            yield client


M = f"{ENTERPRISE}:manager"
DOTTED = f"{ENTERPRISE}.manager"
BOB = {"value": "26", "displayName": "Bob"}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({ENTERPRISE: {"manager": {"value": "26"}}}, {"value": "26"}),
        ({ENTERPRISE: {"manager": "26"}}, {"value": "26"}),
        ({ENTERPRISE: {"manager": BOB}}, BOB),
        ({ENTERPRISE: {"manager": [BOB]}}, BOB),
        ({ENTERPRISE: {"manager": {"$ref": None, "value": "26"}}}, {"value": "26"}),
        ({ENTERPRISE: {"manager": {"displayName": "Bob"}}}, {"displayName": "Bob"}),
        ({M: "26"}, {"value": "26"}),
        ({DOTTED: {"value": "26"}}, {"value": "26"}),
        ({ENTERPRISE: {"manager": ""}}, None),
        ({ENTERPRISE: {"manager": None}}, None),
    ],
)
def test_a_manager_comes_in_any_form(
    idp: httpx.Client, sent: dict[str, Any], kept: dict[str, str] | None
) -> None:
    ann = user(idp, "ann", **sent)
    resource = idp.get(f"/Users/{ann}").json()
    assert resource.get(ENTERPRISE, {}).get("manager") == kept
    put = idp.put(f"/Users/{ann}", json=resource | sent)
    assert put.status_code == 200, put.text
    assert put.json().get(ENTERPRISE, {}).get("manager") == kept


@pytest.mark.parametrize(
    ("operation", "kept"),
    [
        ({"path": M, "value": "26"}, {"value": "26"}),
        ({"path": M, "value": {"value": "26"}}, {"value": "26"}),
        ({"path": M, "value": BOB}, BOB),
        ({"path": M, "value": [{"value": "26"}]}, {"value": "26"}),
        ({"path": M, "value": [{"$ref": None, "value": "26"}]}, {"value": "26"}),
        ({"path": f"{M}.value", "value": "26"}, {"value": "26"}),
        ({"path": f"{M}.displayName", "value": "Bob"}, {"displayName": "Bob"}),
        ({"path": DOTTED, "value": "26"}, {"value": "26"}),
        ({"path": DOTTED, "value": [BOB]}, BOB),
        ({"path": f"{DOTTED}.value", "value": "26"}, {"value": "26"}),
        ({"path": ENTERPRISE, "value": {"manager": "26"}}, {"value": "26"}),
        ({"value": {M: "26"}}, {"value": "26"}),
        ({"value": {DOTTED: "26"}}, {"value": "26"}),
        ({"value": {f"{M}.value": "26"}}, {"value": "26"}),
        ({"value": {ENTERPRISE: {"manager": "26"}}}, {"value": "26"}),
        ({"value": {ENTERPRISE: {"manager": BOB}}}, BOB),
    ],
)
@pytest.mark.parametrize("op", ["Add", "replace"])
def test_what_a_patch_says_of_a_manager_a_put_may_say_too(
    idp: httpx.Client, op: str, operation: dict[str, Any], kept: dict[str, str]
) -> None:
    ann = user(idp, "ann")
    answer = patch(idp, f"/Users/{ann}", {"op": op, **operation})
    assert answer.status_code == 200, answer.text
    resource = idp.get(f"/Users/{ann}").json()
    assert resource[ENTERPRISE]["manager"] == kept
    put = idp.put(f"/Users/{ann}", json=resource)
    assert put.status_code == 200, put.text
    assert put.json()[ENTERPRISE]["manager"] == kept


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": M},
        {"op": "Remove", "path": DOTTED, "value": "26"},
        {"op": "Remove", "path": M, "value": [{"value": "26"}]},
        {"op": "replace", "path": M, "value": ""},
        {"op": "Replace", "path": M, "value": None},
        {"op": "replace", "path": f"{M}.value", "value": ""},
        {"op": "replace", "value": {M: ""}},
    ],
)
def test_a_manager_is_taken_away(idp: httpx.Client, operation: dict[str, Any]) -> None:
    ann = user(idp, "ann", **{ENTERPRISE: {"manager": BOB, "department": "Lab"}})
    answer = patch(idp, f"/Users/{ann}", operation)
    assert answer.status_code == 200, answer.text
    assert idp.get(f"/Users/{ann}").json()[ENTERPRISE] == {"department": "Lab"}


def test_another_manager_does_not_keep_the_former_ones_name(idp: httpx.Client) -> None:
    ann = user(idp, "ann", **{ENTERPRISE: {"manager": BOB}})
    patch(idp, f"/Users/{ann}", {"op": "Replace", "path": M, "value": "27"})
    assert idp.get(f"/Users/{ann}").json()[ENTERPRISE]["manager"] == {"value": "27"}


# ---- What cannot be understood is said in words of ours

LIBRARIES = re.compile(
    r"pydantic|validation error|Input should|\[type=|Field |instance|dictionary|\bmodel\b|None\b"
    r"|ScimUser|EnterpriseUser\b(?!:)|Manager\b"
)


@pytest.mark.parametrize(
    ("method", "path", "body", "where"),
    [
        ("POST", "/Users", {}, "userName"),
        ("POST", "/Users", {"schemas": [USER]}, "userName"),
        ("POST", "/Users", {"schemas": [USER], "userName": 5}, "userName"),
        ("POST", "/Users", {"schemas": [USER], "userName": "x", "emails": "y"}, "emails"),
        ("POST", "/Users", {"schemas": [USER], "userName": "x", "name": 1}, "name"),
        ("POST", "/Users", {"schemas": [USER], "userName": "x", "active": "maybe"}, "active"),
        ("POST", "/Users", {"schemas": [USER], "userName": "x", M: [1, 2]}, "manager"),
        ("POST", "/Groups", {"schemas": [GROUP]}, "displayName"),
        ("PATCH", "/Users/ID", {"schemas": [PATCH]}, ""),
        ("PATCH", "/Users/ID", {"schemas": [PATCH], "Operations": []}, ""),
        ("PATCH", "/Users/ID", {"schemas": [PATCH], "Operations": [{"op": "move"}]}, "op"),
        ("PATCH", "/Users/ID", {"op": "replace", "path": "((", "value": 1}, ""),
        ("PATCH", "/Users/ID", {"op": "replace", "path": "id", "value": "x"}, "id"),
        ("PATCH", "/Users/ID", {"op": "replace", "path": "name", "value": 7}, "name"),
        ("PATCH", "/Users/ID", {"op": "add", "path": M, "value": [1, 2]}, "manager"),
        ("PATCH", "/Users/ID", {"op": "remove"}, ""),
        ("GET", "/Users?filter=userName%20xx%205", None, "filter"),
        ("GET", "/Users?filter=active%20gt%20true", None, "filter"),
        ("GET", "/Users?count=many", None, "count"),
        ("GET", "/Users?attributes=%20(", None, ""),
        ("POST", "/Users/.search", {"schemas": ["x"], "count": "many"}, ""),
    ],
)
def test_errors_are_in_words_of_ours(
    idp: httpx.Client, method: str, path: str, body: dict[str, Any] | None, where: str
) -> None:
    if "ID" in path:
        path = path.replace("ID", user(idp, "ann"))
    if body and "op" in body:
        body = {"schemas": [PATCH], "Operations": [body]}
    answer = idp.request(method, path, json=body)
    assert answer.status_code == 400, answer.text
    detail = answer.json()["detail"]
    assert not LIBRARIES.search(detail), detail
    assert where in detail
