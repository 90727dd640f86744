"""The demo's credits that are bought: packages, one group that pays by Stripe, one whose partner
charges, and one for which nothing can be bought yet. All of it by HTTP, as anybody would."""

from typing import Any, Final

import httpx

from cli.up.demo_state import BUYING_GROUP, DEMO_ORGANIZATION
from schemas.records import MICRO

PARTNER_GROUP: Final = "group_marketing"
TIMEOUT_S: Final = 30.0
PACKAGES: Final = (
    {
        "id": "starter",
        "name": "1,000 credits",
        "credits_micro": 1_000 * MICRO,
        "price_minor": 1_000,
        "currency": "USD",
        "sold_monthly": True,
    },
    {
        "id": "growth",
        "name": "5,000 credits",
        "credits_micro": 5_000 * MICRO,
        "price_minor": 4_500,
        "currency": "USD",
        "sold_monthly": True,
    },
)
BOUGHT: Final = (
    {"package_id": "starter", "kind": "one_time", "quantity": 2},
    {"package_id": "growth", "kind": "monthly", "quantity": 1},
)


class _Stops(Exception):
    """Somebody has changed the demo since, or an answer is missing; the message says what."""


def sell(
    api_url: str, operator_key: str, admin_key: str, *, by_stand_in: bool, by_partner: bool
) -> str:
    """Whatever of it is not there yet. Why not, in a line, where it cannot be; else empty.

    Nothing is bought by itself with a key of Stripe's own.
    """
    try:
        with httpx.Client(base_url=api_url, timeout=TIMEOUT_S, trust_env=False) as client:
            operator, admin = httpx.BasicAuth(operator_key, ""), httpx.BasicAuth(admin_key, "")
            for package in PACKAGES:
                _asked(client, operator, "/v1/packages", package, 201, 409)
            _enable(client, admin, BUYING_GROUP, "standard")
            if by_stand_in:
                _buy(client, admin, BUYING_GROUP, BOUGHT)
            if by_partner:
                _enable(client, admin, PARTNER_GROUP, "partner_managed")
                _buy(client, admin, PARTNER_GROUP, BOUGHT[:1])
    except (httpx.HTTPError, _Stops) as error:
        return f"no credits are bought: {error}"
    return ""


def _enable(client: httpx.Client, auth: httpx.Auth, group_id: str, kind: str) -> None:
    _asked(client, auth, f"{_pool(group_id)}/billing", {"kind": kind}, 200, 201)


def _buy(
    client: httpx.Client, auth: httpx.Auth, group_id: str, bought: tuple[dict[str, Any], ...]
) -> None:
    """Once: a demo in which anything was bought is left alone."""
    path = f"{_pool(group_id)}/purchases"
    held = client.get(path, auth=auth).raise_for_status().json()["items"]
    if len(held) >= len(bought):
        return
    for order in bought:
        key = {"Idempotency-Key": f"demo-{group_id}-{order['kind']}"}
        answer = _asked(client, auth, path, order, 201, headers=key)
        if answer["checkout_url"]:
            # The stand-in's page, and its button.
            httpx.post(
                answer["checkout_url"], data={"action": "pay"}, timeout=TIMEOUT_S, trust_env=False
            )


def _pool(group_id: str) -> str:
    return f"/v1/organizations/{DEMO_ORGANIZATION}/groups/{group_id}"


def _asked(
    client: httpx.Client,
    auth: httpx.Auth,
    path: str,
    body: dict[str, Any],
    *expected: int,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    answer = client.post(path, json=body, auth=auth, headers=headers)
    if answer.status_code not in expected:
        raise _Stops(f"{path} answers {answer.status_code} {answer.text}")
    content: dict[str, Any] = answer.json()
    return content
