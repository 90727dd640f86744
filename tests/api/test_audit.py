"""Every change is in the audit log: who, when, how, before and after."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from sqlalchemy import select

from api.app import openapi
from api.payments.providers import Payments
from api.rules.erasure import PERSONAL, erase_member
from api.storage.ledgers import AuditEntry
from schemas.settings import Settings
from tests.api.serving import SETUP, Served, serving
from tests.api.shop import BUY, THOUSAND, CashTill, subscribe
from tests.conftest import MakeSettings

ORG: Final = "/v1/organizations/{organization_id}"
READ_ONLY: Final = frozenset(
    {
        *("POST /teams/spend", "POST /teams/filtered-usage-events", "POST /teams/daily-usage-data"),
        *("POST /scim/v2/.search", "POST /scim/v2/Users/.search", "POST /scim/v2/Groups/.search"),
        *("POST /v1/events", "POST /webhooks/stripe", "POST /webhooks/partners/{partner}"),
    }
)
"""What looks like a change and is none; usage itself is in ClickHouse, and a webhook is only a
reason to look."""
WITHOUT_BEFORE: Final = (
    *("create", "alias_added", "set", "set_default", "adjust"),
    *("billing.enable", "billing.portal"),
)
USER: Final = {"userName": "uma@example.com", "emails": [{"value": "uma@example.com"}]}


@pytest.fixture
def served(make_settings: MakeSettings) -> Iterator[Served]:
    with serving(make_settings()) as opened:
        yield opened


class Changer:
    """Sends one request after another, and looks at what each leaves in the log."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.clients = {
            "teams": served.client("admin"),
            "v1": served.client("operator"),
            "scim": served.client("scim"),
        }
        self.operations: set[str] = set()
        self.seen = self.last_id()

    def last_id(self) -> int:
        with self.served.control.store.read() as session:
            newest = select(AuditEntry.id).order_by(AuditEntry.id.desc()).limit(1)
            return session.scalar(newest) or 0

    def __call__(
        self, operation: str, body: object = None, query: dict[str, str] | None = None, **ids: str
    ) -> dict[str, Any]:
        self.operations.add(operation)
        method, path = operation.split()
        part = path.split("/")[1]
        url = path.format(organization_id="org_a", **ids)
        content = body if isinstance(body, bytes) else json.dumps(body)
        answer = self.clients[part].request(
            method,
            url,
            params=query,
            content=None if body is None else content,
            headers={"Content-Type": "application/json"},
        )
        assert answer.is_success, (operation, answer.text)
        self.check(operation, "scim" if part == "scim" else None)
        return dict(answer.json()) if answer.content else {}

    def check(self, operation: str, how: str | None) -> None:
        with self.served.control.store.read() as session:
            newer = select(AuditEntry).where(AuditEntry.id > self.seen).order_by(AuditEntry.id)
            # What a provider says is noted in its name.
            rows = [row for row in session.scalars(newer) if row.actor != SETUP.id]
        assert rows, f"{operation} left nothing in the audit log"
        for row in rows:
            assert row.actor.startswith("key:"), operation
            assert abs((datetime.now(UTC) - row.at).total_seconds()) < 60
            assert row.how in ((how,) if how else ("api", "csv")), (operation, row.how)
            assert row.after or row.before, (operation, row.action)
            if not row.action.endswith(WITHOUT_BEFORE):
                assert row.before is not None, (operation, row.action)
            assert row.before != row.after, (operation, row.action)
        self.seen = rows[-1].id


def test_every_changing_route_leaves_an_entry(served: Served) -> None:
    do = Changer(served)
    change_organizations(do)
    change_groups(do)
    change_members(do)
    change_directory(do)
    change_what_is_bought(do)
    changing = {
        f"{method.upper()} {path}"
        for path, methods in openapi(Settings())["paths"].items()
        for method in methods
        if method != "get"
    }
    assert changing - READ_ONLY == do.operations
    for client in do.clients.values():
        client.close()


def change_organizations(do: Changer) -> None:
    do("POST /v1/organizations", {"name": "New"})
    do("PATCH " + ORG, {"name": "Acme & Sons"})
    do(f"POST {ORG}/prices", {"meter": "m", "micro_per_million_units": 1})
    do("POST /v1/prices", {"meter": "m", "micro_per_million_units": 2})
    website = do(f"POST {ORG}/websites", {"name": "Shop"})["id"]
    pool = {"pool_kind": "website", "pool_id": website}
    grant = do(f"POST {ORG}/grants", {**pool, "amount_micro": 9})["id"]
    do(f"POST {ORG}/grants/{{grant_id}}/revocations", {"why": "refund"}, grant_id=grant)
    do(f"POST {ORG}/adjustments", {**pool, "amount_micro": -1, "why": "twice"})
    do(f"PATCH {ORG}/websites/{{website_id}}", {"name": "Store"}, website_id=website)
    for base, scope in ((f"{ORG}/keys", "finance"), ("/v1/keys", "operator")):
        key = do(f"POST {base}", {"scope": scope, "name": "k"})["id"]
        key = do(f"POST {base}/{{key_id}}/rotate", key_id=key)["id"]
        do(f"DELETE {base}/{{key_id}}", key_id=key)


def change_what_is_bought(do: Changer) -> None:
    till = CashTill(do.served.control)
    do.served.app.state.api.desk.payments = Payments(till, {}, {})
    do("POST /v1/packages", {**THOUSAND, "id": "pkg"})
    do("PATCH /v1/packages/{package_id}", {"name": "Thousand"}, package_id="pkg")
    group = do(f"POST {ORG}/groups", {"name": "Buyers"})["id"]
    website = do(f"POST {ORG}/websites", {"name": "Bought"})["id"]
    for pool, ids in (
        (f"{ORG}/groups/{{group_id}}", {"group_id": group}),
        (f"{ORG}/websites/{{website_id}}", {"website_id": website}),
    ):
        do(f"POST {pool}/billing", {}, **ids)
        bought = do(f"POST {pool}/purchases", {**BUY, "kind": "monthly"}, **ids)["purchase"]["id"]
        subscribe(do.served.control, bought)
        for what in ("cancel", "resume"):
            path = f"POST {pool}/subscriptions/{{subscription_id}}/{what}"
            do(path, subscription_id=bought, **ids)
        do(f"POST {pool}/portal", {}, **ids)


def change_groups(do: Changer) -> None:
    do(f"POST {ORG}/members", {"id": "ann", "email": "ann@example.com"})
    group = do("POST /teams/groups", {"name": "One"})["group"]["id"]
    do("PATCH /teams/groups/{groupId}", {"name": "Uno"}, groupId=group)
    do("POST /teams/groups/{groupId}/members", {"userIds": ["ann"]}, groupId=group)
    do("DELETE /teams/groups/{groupId}/members", {"userIds": ["ann"]}, groupId=group)
    do("DELETE /teams/groups/{groupId}", groupId=group)
    group = do(f"POST {ORG}/groups", {"name": "Two"})["id"]
    do(f"PATCH {ORG}/groups/{{group_id}}", {"name": "Due"}, group_id=group)
    ids = {"member_ids": ["ann"]}
    do(f"POST {ORG}/groups/{{group_id}}/members", ids, group_id=group)
    do(f"POST {ORG}/groups/{{group_id}}/members/remove", ids, group_id=group)
    do(f"POST {ORG}/moves", {"moves": [{"member_id": "ann", "group_id": group}]})
    file = b"group,email\nThree,ann@example.com\n"
    planned = do.clients["v1"].post("/v1/organizations/org_a/groups/csv", content=file).json()
    do(f"POST {ORG}/groups/csv", file, {"plan": planned["plan"]})
    do(f"DELETE {ORG}/groups/{{group_id}}", query={"confirm_name": "due"}, group_id=group)


def change_members(do: Changer) -> None:
    group = do(f"POST {ORG}/groups", {"name": "Four"})["id"]
    one = f"{ORG}/members/{{member_id}}"
    do(f"PATCH {one}", {"name": "Ann"}, member_id="ann")
    do(f"POST {one}/move", {"group_id": group}, member_id="ann")
    do(f"POST {one}/aliases", {"alias": "a@example.com"}, member_id="ann")
    do(f"DELETE {one}/aliases/{{alias}}", member_id="ann", alias="a@example.com")
    do(f"DELETE {one}", member_id="ann")


def change_directory(do: Changer) -> None:
    user = do("POST /scim/v2/Users", USER)["id"]
    renamed = {"op": "replace", "path": "externalId", "value": "ext-1"}
    do("PATCH /scim/v2/Users/{user_id}", {"Operations": [renamed]}, user_id=user)
    do("PUT /scim/v2/Users/{user_id}", {**USER, "active": False}, user_id=user)
    group = do("POST /scim/v2/Groups", {"displayName": "Directory"})["id"]
    members = {"op": "add", "path": "members", "value": [{"value": user}]}
    do("PATCH /scim/v2/Groups/{group_id}", {"Operations": [members]}, group_id=group)
    do("PUT /scim/v2/Groups/{group_id}", {"displayName": "Another"}, group_id=group)
    do("DELETE /scim/v2/Groups/{group_id}", group_id=group)
    do("DELETE /scim/v2/Users/{user_id}", user_id=user)


def test_an_address_that_changes_hands_is_told_of_both(served: Served) -> None:
    with served.client("admin") as admin:
        base = "/v1/organizations/org_a/members"
        for name in ("ann", "ben"):
            admin.post(base, json={"id": name, "email": f"{name}@example.com"})
        admin.patch(f"{base}/ann", json={"email": "new@example.com"})
        admin.patch(f"{base}/ben", json={"email": "ann@example.com"})
        events = admin.get("/v1/organizations/org_a/audit").json()["items"]
    subjects = [(one["eventType"], one["subjectId"]) for one in events]
    assert ("member.alias_removed", "ann") in subjects
    assert ("member.alias_added", "ben") in subjects


def test_how_is_not_for_the_caller_to_say(served: Served) -> None:
    with served.client("admin") as admin:
        claimed = {"Metering-How": "manual"}
        base = "/v1/organizations/org_a/groups"
        group = admin.post(base, json={"name": "One"}, headers=claimed).json()["id"]
        admin.patch(f"{base}/{group}", json={"name": "Uno"}, headers=claimed)
        events = admin.get("/v1/organizations/org_a/audit").json()["items"]
    assert [(one["eventType"], one["how"]) for one in events[:2]] == [
        ("group.rename", "api"),
        ("group.create", "api"),
    ]


def test_the_log_of_an_erased_user_names_nobody(served: Served) -> None:
    with served.client("scim") as scim:
        user = scim.post("/scim/v2/Users", json={**USER, "externalId": "uma-7"}).json()["id"]
        scim.put(f"/scim/v2/Users/{user}", json={**USER, "externalId": "uma-8"})
    with served.control.change("org_a", SETUP) as change:
        erase_member(change, user)
    with served.client("admin") as admin:
        log = admin.get("/teams/audit-logs").text
    assert "uma" not in log.lower()
    assert {"user_name", "external_id"} <= set(PERSONAL)


def test_every_post_of_v1_takes_an_idempotency_key() -> None:
    """Usage has an identity of its own: source and id."""
    for path, methods in openapi(Settings())["paths"].items():
        if path.startswith("/v1/") and path != "/v1/events" and "post" in methods:
            headers = {one["name"].lower() for one in methods["post"]["parameters"]}
            assert "idempotency-key" in headers, path


def test_only_posts_take_an_idempotency_key() -> None:
    for path, methods in openapi(Settings())["paths"].items():
        for method, operation in methods.items():
            headers = {one["name"].lower() for one in operation.get("parameters", ())}
            assert method == "post" or "idempotency-key" not in headers, (method, path)


def test_default_prices_are_in_every_log_with_their_date(served: Served) -> None:
    price = {
        "meter": "ai.tokens",
        "micro_per_million_units": 7,
        "effective_at": "2026-12-24T00:00:00Z",
    }
    with served.client("operator") as operator:
        assert operator.post("/v1/prices", json=price).status_code == 201
        operator.post("/v1/organizations", json={"id": "org_new", "name": "New"})
        logs = [
            operator.get(path).json()["items"]
            for path in (
                "/v1/audit",
                "/v1/organizations/org_a/audit",
                "/v1/organizations/org_b/audit",
                "/v1/organizations/org_new/audit",
            )
        ]
    for log in logs:
        (entry,) = (one for one in log if one["eventType"] == "price.set_default")
        assert entry["subjectId"] == "ai.tokens"
        assert entry["after"]["effective_at"].startswith("2026-12-24")
