"""What identity providers send, as helpers: users, groups and patches by their JSON."""

from typing import Any

import httpx

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
ADSCIM = "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


def user(idp: httpx.Client, name: str, **more: Any) -> str:
    body = {
        "schemas": [USER, ENTERPRISE],
        "userName": f"{name}@example.com",
        "externalId": f"ext-{name}",
        "name": {"givenName": name.title(), "familyName": "Example"},
        "emails": [{"primary": True, "type": "work", "value": f"{name}@example.com"}],
        "displayName": name.title(),
        "password": "Secret1!",
        "active": True,
        **more,
    }
    answer = idp.post("/Users", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["content-type"].startswith("application/scim+json")
    assert "password" not in answer.text
    user_id: str = answer.json()["id"]
    return user_id


def group(idp: httpx.Client, name: str, *members: str, schemas: tuple[str, ...] = (GROUP,)) -> str:
    body = {
        "schemas": list(schemas),
        "displayName": name,
        "externalId": f"ext-{name}",
        "members": [{"value": one, "display": "x@example.com"} for one in members],
    }
    answer = idp.post("/Groups", json=body)
    assert answer.status_code == 201, answer.text
    group_id: str = answer.json()["id"]
    return group_id


def patch(idp: httpx.Client, path: str, *operations: dict[str, Any]) -> httpx.Response:
    return idp.patch(path, json={"schemas": [PATCH], "Operations": list(operations)})


def members(idp: httpx.Client, group_id: str) -> set[str]:
    references = idp.get(f"/Groups/{group_id}").json().get("members", [])
    return {one["value"] for one in references}
