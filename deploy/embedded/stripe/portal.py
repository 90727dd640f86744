"""Billing portal sessions. https://docs.stripe.com/customer-management"""

from deploy.embedded.stripe.problems import missing_parameter
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

VALID_S = 3_600
"""How long the address of a portal can be opened."""


def create(world: World, path: Thing, params: Thing) -> Thing:
    """An address that shows the customer's subscriptions and invoices, for an hour."""
    if "customer" not in params:
        raise missing_parameter("customer")
    customer = world.get("customer", params["customer"], "customer")
    session = world.add(
        "billing_portal.session",
        "bps_",
        configuration="bpc_standin",
        created=world.now_s(),
        customer=customer["id"],
        locale=params.get("locale"),
        return_url=params.get("return_url"),
        url="",
    )
    world.update(session, url=f"{world.base_url}/p/session/{session['id']}")
    world.emit("billing_portal.session.created", session)
    return session
