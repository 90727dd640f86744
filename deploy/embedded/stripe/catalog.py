"""Products and prices, given or made from `price_data`. https://docs.stripe.com/api/prices"""

from typing import Any

from deploy.embedded.stripe.customers import kept, merged
from deploy.embedded.stripe.problems import Problem, missing_parameter
from deploy.embedded.stripe.shapes import blank
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

RECURRING = {
    "interval_count": 1,
    "meter": None,
    "trial_period_days": None,
    "usage_type": "licensed",
}
UNIT_AMOUNT_MAX = 99_999_999


def create_product(world: World, path: Thing, params: Thing, *, active: bool = True) -> Thing:
    now_s = world.now_s()
    product = world.add(
        "product",
        "prod_",
        active=params.get("active", active),
        created=now_s,
        updated=now_s,
        name=params["name"],
        description=params.get("description"),
        images=params.get("images", []),
        metadata=kept(params.get("metadata")),
        type="service",
        unit_label=params.get("unit_label"),
    )
    world.emit("product.created", product)
    return product


def update_product(world: World, path: Thing, params: Thing) -> Thing:
    product = world.get("product", path["id"], status=404)
    changes: Thing = {
        name: params[name] for name in ("active", "description", "name") if name in params
    }
    if "metadata" in params:
        changes["metadata"] = merged(product["metadata"], params["metadata"])
    return world.update(product, "product.updated", updated=world.now_s(), **changes)


def create_price(world: World, path: Thing, params: Thing, *, active: bool = True) -> Thing:
    amount = params.get("unit_amount")
    if amount is None and "unit_amount_decimal" in params:
        raise Problem(
            "The stand-in for Stripe has no decimal amounts.", param="unit_amount_decimal"
        )
    if amount is None:
        raise missing_parameter("unit_amount")
    if not 0 <= amount <= UNIT_AMOUNT_MAX:
        raise Problem("Invalid unit_amount.", param="unit_amount")
    if "product_data" in params:
        product = create_product(world, path, params["product_data"], active=active)
    elif "product" in params:
        product = world.get("product", params["product"], "product")
    else:
        raise missing_parameter("product")
    recurring = params.get("recurring")
    price = world.add(
        "price",
        "price_",
        active=params.get("active", active),
        billing_scheme="per_unit",
        created=world.now_s(),
        currency=params["currency"].lower(),
        lookup_key=params.get("lookup_key"),
        metadata=kept(params.get("metadata")),
        nickname=params.get("nickname"),
        product=product["id"],
        recurring={**RECURRING, **recurring} if recurring else None,
        tax_behavior=params.get("tax_behavior", "unspecified"),
        type="recurring" if recurring else "one_time",
        unit_amount=amount,
        unit_amount_decimal=str(amount),
    )
    world.emit("price.created", price)
    return price


def update_price(world: World, path: Thing, params: Thing) -> Thing:
    price = world.get("price", path["id"], status=404)
    changes: Thing = {
        name: params[name] for name in ("active", "nickname", "lookup_key") if name in params
    }
    if "metadata" in params:
        changes["metadata"] = merged(price["metadata"], params["metadata"])
    return world.update(price, "price.updated", **changes)


def priced(world: World, item: Thing, param: str) -> Thing:
    """The price of a line item, by id or made from its `price_data` (and then not sold again)."""
    if "price" in item and "price_data" in item:
        raise Problem(f"Give only one of {param}[price] and {param}[price_data].", param=param)
    if "price_data" in item:
        return create_price(world, {}, item["price_data"], active=False)
    if "price" not in item:
        raise missing_parameter(f"{param}[price]")
    price = world.get("price", item["price"], f"{param}[price]")
    if not price["active"]:
        raise Problem(
            f"The price specified is inactive: {price['id']}",
            param=f"{param}[price]",
        )
    return price


def product_name(world: World, price: Thing) -> str:
    product = world.store.find(price["product"]) or {}
    return str(product.get("name", price["id"]))


def plan_of(price: Thing) -> Thing:
    """The older form of a recurring price, which subscription items still carry."""
    recurring: dict[str, Any] = price["recurring"]
    return blank(
        "plan",
        id=price["id"],
        active=price["active"],
        amount=price["unit_amount"],
        amount_decimal=price["unit_amount_decimal"],
        billing_scheme="per_unit",
        created=price["created"],
        currency=price["currency"],
        interval=recurring["interval"],
        interval_count=recurring["interval_count"],
        product=price["product"],
        usage_type="licensed",
    )
