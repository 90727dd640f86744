"""Each scope on each route of billing, and keys that are admins of one group."""

from collections.abc import Callable
from itertools import product

import httpx

from api.rules import keys as key_rules
from api.rules.groups import create_group
from api.rules.keys import Scope
from api.rules.websites import create_website
from tests.api.conftest import ADMIN
from tests.api.serving import Served
from tests.api.shop import BUY, LAB, ORG, WEB, CashTill, code


def of_group(selling: Served, group_id: str | None) -> httpx.Client:
    """A client of an admin of one group (None: of all)."""
    with selling.control.transaction(ADMIN) as transaction:
        key = key_rules.create_key(
            transaction, Scope.GROUP_ADMIN, "test", "org_a", group_id=group_id
        )
    return httpx.Client(base_url=selling.url, auth=(key.secret, ""), timeout=30)


def requests(pool: str) -> dict[str, Callable[[httpx.Client], httpx.Response]]:
    """Every route of a pool; writing ones with what would be done."""
    return {
        "read billing": lambda client: client.get(f"{pool}/billing"),
        "read invoices": lambda client: client.get(f"{pool}/invoices"),
        "read purchases": lambda client: client.get(f"{pool}/purchases"),
        "read purchase": lambda client: client.get(f"{pool}/purchases/buy_0"),
        "write billing": lambda client: client.post(f"{pool}/billing", json={}),
        "write purchases": lambda client: client.post(f"{pool}/purchases", json=BUY),
        "write cancel": lambda client: client.post(f"{pool}/subscriptions/buy_0/cancel"),
        "write resume": lambda client: client.post(f"{pool}/subscriptions/buy_0/resume"),
        "write portal": lambda client: client.post(f"{pool}/portal", json={}),
    }


ALLOWED = {
    "operator": {"read", "write"},
    "admin": {"read", "write"},
    "group_admin": {"read", "write"},
    "finance": {"read"},
    "ingest": set[str](),
    "scim": set[str](),
}


def test_each_scope_on_each_route(selling: Served, till: CashTill) -> None:
    for scope, allowed in ALLOWED.items():
        with selling.client(scope) as client:
            for pool, (name, ask) in product((LAB, WEB), requests(LAB).items()):
                answer = requests(pool)[name](client)
                is_allowed = name.split()[0] in allowed
                assert (answer.status_code != 403) == is_allowed, (scope, pool, name, ask)
                assert answer.status_code < 500
            for path in ("/v1/packages", f"{ORG}/packages"):
                readers = (
                    {"operator"}
                    if path == "/v1/packages"
                    else {"operator", *ALLOWED}
                    - {
                        "ingest",
                        "scim",
                    }
                )
                assert (client.get(path).status_code == 200) == (scope in readers), (scope, path)


def test_an_admin_of_one_group_knows_no_other(selling: Served, till: CashTill) -> None:
    with selling.control.change("org_a", ADMIN) as change:
        create_group(change, "Other", "other")
        create_website(change, "other.example.com", "other", "web_other")
        create_website(change, "alone.example.com", website_id="web_alone")
    own = [f"{ORG}/groups/lab", f"{ORG}/websites/web"]
    foreign = [f"{ORG}/groups/other", f"{ORG}/websites/web_other", f"{ORG}/websites/web_alone"]
    with of_group(selling, "lab") as client:
        for path in own:
            assert client.get(f"{path}/billing").status_code == 200
            assert client.post(f"{path}/purchases", json=BUY).status_code == 201
        for path, name in product(foreign, requests(LAB)):
            assert code(requests(path)[name](client)) == (404, "not_found"), (path, name)
        for path in ("", "/packages", "/groups/lab"):
            assert client.get(f"{ORG}{path}").status_code == 200, path
        of_several = ("groups", "groups/csv", "members", "grants", "overage", "websites", "prices")
        for path in [f"{ORG}/{name}" for name in of_several] + ["/teams/groups", "/teams/members"]:
            assert client.get(path).status_code == 403, path
        assert client.patch(f"{ORG}/groups/lab", json={"name": "Labs"}).status_code == 200
        for path, body in (
            (f"{ORG}/groups", {"name": "Mine"}),
            (f"{ORG}/moves", {"moves": [{"member_id": "m", "group_id": "lab"}]}),
            (f"{ORG}/members/m/move", {"group_id": "lab"}),
            ("/teams/groups", {"name": "Mine"}),
        ):
            assert client.post(path, json=body).status_code == 403, path
        for path in (f"{ORG}/groups/other", "/teams/groups/other"):
            assert client.patch(path, json={"name": "Mine"}).status_code == 404
        assert client.post(f"{ORG}/groups/other/members", json={"member_ids": ["m"]}).is_error


def test_an_admin_of_every_group_buys_for_websites_in_groups_only(
    selling: Served, till: CashTill
) -> None:
    with selling.control.change("org_a", ADMIN) as change:
        create_website(change, "alone.example.com", website_id="web_alone")
    with of_group(selling, None) as client:
        assert client.post(f"{WEB}/purchases", json=BUY).status_code == 201
        alone = f"{ORG}/websites/web_alone"
        assert client.get(f"{alone}/billing").status_code == 200
        assert code(client.post(f"{alone}/billing", json={})) == (403, "forbidden")


def test_a_key_of_a_group_ends_with_it(selling: Served, till: CashTill) -> None:
    with selling.client("admin") as admin:
        _ends_with_its_group(selling, admin)


def _ends_with_its_group(selling: Served, admin: httpx.Client) -> None:
    body = {"scope": "group_admin", "name": "lab's", "group_id": "lab"}
    made = admin.post(f"{ORG}/keys", json=body).json()
    assert made["group_id"] == "lab"
    rotated = admin.post(f"{ORG}/keys/{made['id']}/rotate").json()
    assert rotated["group_id"] == "lab"
    auth = (rotated["secret"], "")
    assert httpx.get(f"{selling.url}{LAB}/billing", auth=auth).status_code == 200
    assert admin.delete(LAB, params={"confirm_name": "Lab"}).status_code == 204
    assert httpx.get(f"{selling.url}{ORG}", auth=auth).status_code == 401
    assert code(admin.get(f"{LAB}/billing")) == (404, "not_found")
    assert code(admin.post(f"{ORG}/keys", json=body)) == (404, "not_found")
    wrong = admin.post(f"{ORG}/keys", json=body | {"scope": "finance"})
    assert (wrong.status_code, wrong.json()["error"]["where"]) == (400, "group_id")
