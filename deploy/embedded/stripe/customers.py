"""Customers. https://docs.stripe.com/api/customers"""

from typing import Any

from deploy.embedded.stripe.problems import missing
from deploy.embedded.stripe.shapes import NO_ADDRESS
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

FIELDS = ("address", "description", "email", "name", "phone", "preferred_locales")


def create(world: World, path: Thing, params: Thing) -> Thing:
    customer = world.add(
        "customer",
        "cus_",
        balance=0,
        created=world.now_s(),
        delinquent=False,
        invoice_prefix=world.new_id("")[:8].upper(),
        invoice_settings={
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        next_invoice_sequence=1,
        preferred_locales=params.get("preferred_locales") or [],
        tax_exempt="none",
        test_clock=None,
        metadata=kept(params.get("metadata")),
        **_fields(params),
    )
    world.emit("customer.created", customer)
    return customer


def update(world: World, path: Thing, params: Thing) -> Thing:
    customer = world.get("customer", path["id"], status=404)
    changes = _fields(params)
    if "metadata" in params:
        changes["metadata"] = merged(customer["metadata"], params["metadata"])
    return world.update(customer, "customer.updated", **changes)


def retrieve(world: World, path: Thing, params: Thing) -> Thing:
    """A deleted one is answered as `{"id", "object", "deleted": true}`."""
    customer = world.store.find(path["id"])
    if customer is None or customer["object"] != "customer":
        raise missing("customer", path["id"], status=404)
    return customer


def delete(world: World, path: Thing, params: Thing) -> Thing:
    """Also ends its subscriptions, at once."""
    from deploy.embedded.stripe import subscriptions

    customer = world.get("customer", path["id"], status=404)
    for subscription in world.all("subscription", customer=customer["id"]):
        subscriptions.end(world, subscription, "cancellation_requested")
    gone = {"id": customer["id"], "object": "customer", "deleted": True}
    world.emit("customer.deleted", customer)
    world.store.save(gone)
    return gone


def kept(metadata: Any) -> Thing:
    return {name: value for name, value in (metadata or {}).items() if value != ""}


def merged(former: Thing, given: Any) -> Thing:
    """An empty value unsets its key; an empty string in place of metadata unsets all."""
    return {} if given == "" else kept({**former, **given})


def _fields(params: Thing) -> Thing:
    fields = {name: params[name] or None for name in FIELDS if name in params}
    if address := fields.get("address"):
        fields["address"] = {**NO_ADDRESS, **address}
    return fields
