"""What Okta and Entra really send (`facts.md` §3), replayed."""

from collections.abc import Iterator

import httpx
import pytest

from api import reading
from tests.api.scim_traffic import (
    ADSCIM,
    ENTERPRISE,
    GROUP,
    USER,
    group,
    members,
    patch,
    user,
)
from tests.api.serving import Served, serving
from tests.conftest import MakeSettings


@pytest.fixture
def served(make_settings: MakeSettings) -> Iterator[Served]:
    with serving(make_settings()) as opened:
        yield opened


@pytest.fixture
def idp(served: Served) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {served.key('scim', 'org_a')}"}
    with httpx.Client(base_url=f"{served.url}/scim/v2", headers=headers, timeout=30) as client:
        yield client


# ---- Okta


def test_okta_looks_for_a_user_before_it_creates_one(idp: httpx.Client) -> None:
    query = {"filter": 'userName eq "ann@example.com"', "startIndex": 1, "count": 100}
    empty = idp.get("/Users", params=query)
    assert empty.status_code == 200
    assert empty.json()["totalResults"] == 0
    assert isinstance(empty.json()["startIndex"], int)
    ann = user(idp, "ann")
    query["filter"] = 'userName eq "ANN@EXAMPLE.COM"'
    assert [one["id"] for one in idp.get("/Users", params=query).json()["Resources"]] == [ann]


def test_okta_creates_the_same_user_twice(idp: httpx.Client) -> None:
    user(idp, "ann")
    again = idp.post("/Users", json={"schemas": [USER], "userName": "Ann@example.com"})
    assert again.status_code == 409
    error = again.json()
    assert error["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    assert error["status"] == "409"
    assert error["scimType"] == "uniqueness"


def test_okta_deactivates_without_a_path_and_brings_back(idp: httpx.Client) -> None:
    ann = user(idp, "ann")
    off = patch(idp, f"/Users/{ann}", {"op": "replace", "value": {"active": False}})
    assert off.status_code == 200
    assert off.json()["active"] is False
    listed = idp.get("/Users", params={"filter": 'userName eq "ann@example.com"'}).json()
    assert listed["Resources"][0]["active"] is False
    on = patch(idp, f"/Users/{ann}", {"op": "replace", "value": {"active": True}})
    assert on.json()["active"] is True


def test_okta_wizard_apps_put_users_and_groups(idp: httpx.Client) -> None:
    ann, ben = user(idp, "ann"), user(idp, "ben")
    body = idp.get(f"/Users/{ann}").json() | {"displayName": "Anna", "active": False}
    put = idp.put(f"/Users/{ann}", json=body)
    assert (put.status_code, put.json()["displayName"], put.json()["active"]) == (
        200,
        "Anna",
        False,
    )
    sales = group(idp, "Sales", ann)
    body = {"schemas": [GROUP], "id": sales, "displayName": "Sales", "members": [{"value": ben}]}
    assert idp.put(f"/Groups/{sales}", json=body).status_code == 200
    assert members(idp, sales) == {ben}


def test_okta_repeats_the_id_in_a_rename(idp: httpx.Client) -> None:
    sales = group(idp, "Sales")
    rename = {"op": "replace", "value": {"id": sales, "displayName": "Field sales"}}
    assert patch(idp, f"/Groups/{sales}", rename).status_code in (200, 204)
    assert idp.get(f"/Groups/{sales}").json()["displayName"] == "Field sales"


def test_okta_removes_and_adds_in_one_patch_and_replaces_all(idp: httpx.Client) -> None:
    ann, ben = user(idp, "ann"), user(idp, "ben")
    sales = group(idp, "Sales", ann)
    answer = patch(
        idp,
        f"/Groups/{sales}",
        {"op": "remove", "path": f'members[value eq "{ann}"]'},
        {"op": "add", "path": "members", "value": [{"value": ben, "display": "ben@example.com"}]},
    )
    assert answer.status_code in (200, 204)
    assert members(idp, sales) == {ben}
    patch(idp, f"/Groups/{sales}", {"op": "replace", "path": "members", "value": [{"value": ann}]})
    assert members(idp, sales) == {ann}


def test_okta_deletes_groups(idp: httpx.Client) -> None:
    sales = group(idp, "Sales", user(idp, "ann"))
    assert idp.delete(f"/Groups/{sales}").status_code == 204
    assert idp.get(f"/Groups/{sales}").status_code == 404


def test_okta_spec_suite(idp: httpx.Client, served: Served) -> None:
    user(idp, "ann")
    first = idp.get("/Users", params={"count": 1, "startIndex": 1}).json()
    assert first["itemsPerPage"] == 1
    missing = idp.get("/Users/010101001010101011001010101011")
    assert missing.status_code == 404
    assert missing.json()["status"] == "404"
    assert httpx.get(f"{served.url}/scim/v2/Users").json()["status"] == "401"
    plain = idp.post(
        "/Users",
        content=b'{"schemas":["%s"],"userName":"ben@example.com"}' % USER.encode(),
        headers={"Content-Type": "application/json"},
    )
    assert plain.status_code == 201


def test_pages_are_stable_and_bounded(idp: httpx.Client) -> None:
    users = [user(idp, f"user{number}") for number in range(5)]
    seen = []
    for start in (1, 3, 5):
        page = idp.get("/Users", params={"startIndex": start, "count": 2}).json()
        assert page["totalResults"] == 5
        seen += [one["id"] for one in page["Resources"]]
    assert seen == users
    assert idp.get("/Users", params={"count": 0}).json()["totalResults"] == 5
    assert idp.get("/Users", params={"count": -1, "startIndex": -5}).json()["startIndex"] == 1


def test_who_has_the_address_is_said_with_it(idp: httpx.Client) -> None:
    ann = user(idp, "ann")
    user(idp, "ben")
    other = {"schemas": [USER], "userName": "cas", "emails": [{"value": "ANN@example.com"}]}
    again = idp.post("/Users", json=other)
    assert again.status_code == 409
    assert "'ANN@example.com'" in again.json()["detail"]
    assert ann in again.json()["detail"]


# ---- Entra


def test_entra_posts_groups_with_a_schema_of_its_own(idp: httpx.Client) -> None:
    group(idp, "Sales", schemas=(GROUP, ADSCIM))
    page = idp.get(
        "/Groups", params={"excludedAttributes": "members", "filter": 'displayName eq "Sales"'}
    ).json()
    assert page["totalResults"] == 1
    assert "members" not in page["Resources"][0]


@pytest.mark.parametrize(
    "value",
    ["False", "false", False, [{"value": "False"}]],
    ids=["capital", "small", "boolean", "list"],
)
@pytest.mark.parametrize("op", ["Replace", "replace", "Add"], ids=["flag_off", "flag_on", "add"])
def test_entra_deactivates_with_and_without_its_compliance_flag(
    idp: httpx.Client, op: str, value: object
) -> None:
    ann = user(idp, "ann")
    answer = patch(idp, f"/Users/{ann}", {"op": op, "path": "active", "value": value})
    assert answer.status_code == 200, answer.text
    assert answer.json()["active"] is False


def test_entra_sends_dotted_keys_without_a_path(idp: httpx.Client) -> None:
    ann = user(idp, "ann")
    value = {
        "name.givenName": "Anna",
        "name.familyName": "Beispiel",
        "displayName": "Anna Beispiel",
        f"{ENTERPRISE}:department": "Lab",
        "active": "True",
    }
    answer = patch(idp, f"/Users/{ann}", {"op": "replace", "value": value})
    assert answer.status_code == 200, answer.text
    resource = answer.json()
    assert resource["name"] == {"givenName": "Anna", "familyName": "Beispiel"}
    assert resource[ENTERPRISE]["department"] == "Lab"


def test_entra_adds_an_address_of_a_type_that_is_not_there(idp: httpx.Client) -> None:
    ann = user(idp, "ann")
    path = 'emails[type eq "other"].value'
    answer = patch(idp, f"/Users/{ann}", {"op": "Add", "path": path, "value": "a@example.org"})
    assert answer.status_code == 200, answer.text
    assert {"type": "other", "value": "a@example.org"} in answer.json()["emails"]


def test_entra_removes_members_by_value(idp: httpx.Client) -> None:
    ann, ben = user(idp, "ann"), user(idp, "ben")
    sales = group(idp, "Sales")
    add = {"op": "Add", "path": "members", "value": [{"$ref": None, "value": ann}]}
    assert patch(idp, f"/Groups/{sales}", add).status_code == 204
    add["value"] = [{"$ref": None, "value": ben}]
    patch(idp, f"/Groups/{sales}", add)
    assert members(idp, sales) == {ann, ben}
    remove = {"op": "Remove", "path": "members", "value": [{"$ref": None, "value": ann}]}
    assert patch(idp, f"/Groups/{sales}", remove).status_code == 204
    assert members(idp, sales) == {ben}
    flagged = {"op": "remove", "path": f'members[value eq "{ben}"]'}
    assert patch(idp, f"/Groups/{sales}", flagged).status_code == 204
    assert members(idp, sales) == set()


@pytest.mark.parametrize(
    "text",
    [
        'externalId eq "ext-ann"',
        "externalId eq ext-ann",
        'emails[type eq "work"].value eq "ann@example.com"',
        'userName eq "ann@example.com" and active eq true',
        'userName sw "ann"',
    ],
)
def test_filters_find_one(idp: httpx.Client, text: str) -> None:
    ann = user(idp, "ann")
    user(idp, "ben")
    page = idp.get("/Users", params={"filter": text}).json()
    assert [one["id"] for one in page["Resources"]] == [ann]


@pytest.mark.parametrize(
    "text", ["userName", 'userName eq "x', "userName xx 5", "((", 'a.b.c eq "x"']
)
def test_filters_that_cannot_be_understood(idp: httpx.Client, text: str) -> None:
    answer = idp.get("/Users", params={"filter": text})
    assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidFilter")


def test_entra_tests_its_connection(idp: httpx.Client) -> None:
    random = "3f1c1a0e-0000-4000-8000-000000000000"
    users = idp.get("/Users", params={"filter": f'userName eq "{random}"'}).json()
    assert users == {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": 0,
        "startIndex": 1,
        "itemsPerPage": 0,
    } | ({"Resources": []} if "Resources" in users else {})
    assert idp.get("/Schemas").json()["totalResults"] == 3


def test_values_come_back_untransformed(idp: httpx.Client) -> None:
    ann = user(idp, "ann", displayName="  Ann  Ö. ", userName="Ann@Example.com")
    resource = idp.get(f"/Users/{ann}").json()
    assert resource["displayName"] == "  Ann  Ö. "
    assert resource["userName"] == "Ann@Example.com"


def test_a_member_who_is_no_user_is_refused(idp: httpx.Client) -> None:
    sales = group(idp, "Sales")
    add = {"op": "add", "path": "members", "value": [{"value": "nobody"}]}
    answer = patch(idp, f"/Groups/{sales}", add)
    assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidValue")


def test_a_deleted_user_is_gone_and_may_come_back(idp: httpx.Client) -> None:
    ann = user(idp, "ann")
    assert idp.delete(f"/Users/{ann}").status_code == 204
    assert idp.get(f"/Users/{ann}").status_code == 404
    assert idp.get("/Users").json()["totalResults"] == 0
    assert user(idp, "ann") == ann


def test_members_who_came_otherwise_can_be_found_and_taken_over(
    idp: httpx.Client, served: Served
) -> None:
    with served.client("admin") as admin:
        body = {"id": "ann", "email": "ann@example.com", "name": "Ann"}
        admin.post("/v1/organizations/org_a/members", json=body)
    page = idp.get("/Users", params={"filter": 'userName eq "ann@example.com"'}).json()
    assert page["Resources"][0]["id"] == "ann"
    change = {"op": "replace", "path": "externalId", "value": "ext-1"}
    assert patch(idp, "/Users/ann", change).json()["externalId"] == "ext-1"


@pytest.mark.parametrize("address", ["ann@corp.local", "ann@mail_1.example", "ann..b@x.test"])
def test_an_address_that_no_public_server_has_is_listed_and_provisioned(
    idp: httpx.Client, served: Served, address: str
) -> None:
    with served.client("admin") as admin:
        body = {"id": "ann", "email": address, "name": "Ann"}
        assert admin.post("/v1/organizations/org_a/members", json=body).status_code == 201
    for query in ({}, {"filter": f'userName eq "{address}"'}, {"filter": "active eq true"}):
        page = idp.get("/Users", params=query)
        assert page.status_code == 200, page.text
        assert page.json()["Resources"][0]["emails"][0]["value"] == address
    body = {"schemas": [USER], "userName": "ben", "emails": [{"value": f"ben.{address}"}]}
    ben = idp.post("/Users", json=body)
    assert ben.status_code == 201, ben.text
    assert idp.get(f"/Users/{ben.json()['id']}").json()["emails"][0]["value"] == f"ben.{address}"
    body["userName"], body["emails"] = "cas", [{"value": "no address"}]
    assert idp.post("/Users", json=body).status_code == 400


def test_only_scim_tokens_may_provision_and_nothing_else(idp: httpx.Client, served: Served) -> None:
    with served.client("admin") as admin:
        refused = admin.get("/scim/v2/Users")
        assert (refused.status_code, refused.json()["status"]) == (403, "403")
    assert httpx.get(f"{served.url}/teams/groups", headers=idp.headers).status_code == 403


# ---- Billing groups that follow


def test_a_rename_that_clashes_keeps_the_old_name_and_tells_the_idp_success(
    idp: httpx.Client, served: Served
) -> None:
    directory = group(idp, "Sales")
    with served.client("admin") as admin:
        groups = "/v1/organizations/org_a/groups"
        synced = admin.post(groups, json={"name": "Anything"}).json()["id"]
        taken = admin.post(groups, json={"name": "Field sales"}).json()["id"]
        admin.patch(f"{groups}/{synced}", json={"directory_group_id": directory})
        rename = {"op": "Replace", "path": "displayName", "value": "FIELD SALES"}
        assert patch(idp, f"/Groups/{directory}", rename).status_code == 204
        assert idp.get(f"/Groups/{directory}").json()["displayName"] == "FIELD SALES"
        group_json = admin.get(f"{groups}/{synced}").json()
        assert (group_json["name"], group_json["name_conflict"]) == ("Sales", "FIELD SALES")
        assert [one["name"] for one in group_json["names"]] == ["Anything", "Sales"]
        renamed = admin.patch(f"/teams/groups/{taken}", json={"name": "Elsewhere"})
        assert renamed.status_code == 200
        group_json = admin.get(f"{groups}/{synced}").json()
        assert (group_json["name"], group_json["name_conflict"]) == ("FIELD SALES", None)


def test_whom_two_synced_groups_want_is_shown_and_stays_in_the_first(
    idp: httpx.Client, served: Served
) -> None:
    ann = user(idp, "ann")
    directories = [group(idp, "Sales", ann), group(idp, "Lab", ann)]
    with served.client("admin") as admin:
        groups = "/v1/organizations/org_a/groups"
        synced = []
        for directory in directories:
            synced.append(admin.post(groups, json={"name": "x"}).json()["id"])
            body = {"directory_group_id": directory}
            assert admin.patch(f"{groups}/{synced[-1]}", json=body).status_code == 200
        for one in synced:
            conflicts = admin.get(f"{groups}/{one}").json()["sync_conflicts"]
            assert conflicts == [{"member_id": ann, "group_ids": synced}]
        with served.control.store.read() as session:
            assert reading.sync_conflicts(session, "org_a", "group_unassigned") == {}
        member = f"/v1/organizations/org_a/members/{ann}"
        again = {"op": "replace", "path": "members", "value": [{"value": ann}]}
        for directory in (*directories[::-1], *directories):
            assert patch(idp, f"/Groups/{directory}", again).status_code == 204
            assert admin.get(member).json()["group_id"] == synced[0]
        gone = {"op": "remove", "path": f'members[value eq "{ann}"]'}
        for directory, place in zip(directories, (synced[1], "group_unassigned"), strict=True):
            assert patch(idp, f"/Groups/{directory}", gone).status_code == 204
            assert admin.get(member).json()["group_id"] == place
        assert admin.get(f"{groups}/{synced[0]}").json()["sync_conflicts"] == []
