"""Checkout sessions, and what their hosted page does.

https://docs.stripe.com/api/checkout/sessions, https://docs.stripe.com/payments/checkout/fulfill-orders
"""

from typing import Any

from deploy.embedded.stripe import customers, invoices, payments, subscriptions
from deploy.embedded.stripe.catalog import priced, product_name
from deploy.embedded.stripe.invoices import Sold
from deploy.embedded.stripe.payments import Outcome
from deploy.embedded.stripe.problems import Problem, missing_parameter
from deploy.embedded.stripe.shapes import NO_ADDRESS, NO_TAX, blank
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

EXPIRES_S, EXPIRES_S_MIN, EXPIRES_S_MAX = 86_400, 1_800, 86_400
CLOCKS_DIFFER_S = 60
TOTAL_MIN = 50
TOTAL_MAX = 99_999_999
QUANTITY_MAX = 999_999
SESSION_ID = "{CHECKOUT_SESSION_ID}"
NO_TEXT = dict.fromkeys(
    ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")
)
MODE_ONLY = {
    "invoice_creation": "payment",
    "payment_intent_data": "payment",
    "customer_creation": "payment",
    "submit_type": "payment",
    "subscription_data": "subscription",
}


def create(world: World, path: Thing, params: Thing) -> Thing:
    mode = params.get("mode")
    if mode not in ("payment", "subscription"):
        raise (
            missing_parameter("mode")
            if mode is None
            else Problem("The stand-in for Stripe has no setup mode.", param="mode")
        )
    _check(world, params, mode)
    items = _line_items(world, params, mode)
    now_s, total = world.now_s(), sum(item["amount_total"] for item in items)
    _check_total(total, items[0]["currency"])
    expires_s = _expiry_s(params, now_s, world.ahead_s())
    customer = params.get("customer")
    session = world.add(
        "checkout.session",
        "cs_test_",
        automatic_tax=dict(NO_TAX),
        amount_subtotal=total,
        amount_total=total,
        cancel_url=params.get("cancel_url"),
        client_reference_id=params.get("client_reference_id"),
        created=now_s,
        currency=items[0]["currency"],
        custom_text=dict(NO_TEXT),
        customer=customer,
        customer_creation=_customer_creation(params, mode),
        customer_details=_details(world, customer) if customer else None,
        customer_email=params.get("customer_email"),
        expires_at=expires_s,
        invoice_creation=_invoice_creation(params) if mode == "payment" else None,
        locale=params.get("locale"),
        metadata=customers.kept(params.get("metadata")),
        mode=mode,
        payment_method_collection="always" if mode == "subscription" else "if_required",
        payment_method_options={},
        payment_method_types=params.get("payment_method_types", ["card"]),
        payment_status="unpaid",
        phone_number_collection={"enabled": False},
        status="open",
        submit_type=params.get("submit_type"),
        success_url=params.get("success_url"),
        total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        ui_mode="hosted_page",
    )
    world.update(session, url=f"{world.base_url}/c/pay/{session['id']}")
    world.store.put_aside(
        session["id"],
        items=items,
        payment_intent_data=params.get("payment_intent_data", {}),
        subscription_data=params.get("subscription_data", {}),
    )
    world.store.add_job(expires_s, "expire", session["id"])
    return session


def expire(world: World, path: Thing, params: Thing) -> Thing:
    session = world.get("checkout.session", path["id"], status=404)
    _needs_open(session, "expired")
    world.store.drop_jobs(session["id"], "expire")
    if session["payment_intent"]:
        intent = world.get("payment_intent", session["payment_intent"])
        payments.cancel_intent(world, intent, "automatic")
    world.update(session, status="expired", url=None)
    world.emit("checkout.session.expired", session)
    return session


def pay(world: World, session: Thing, outcome: Outcome) -> Thing:
    """What *Pay* on the hosted page does. A declined card leaves the session open."""
    _needs_open(session, "paid")
    if session["mode"] == "subscription" and outcome.status == "failed":
        return session
    buyer = _buyer(world, session)
    if session["mode"] == "payment":
        if not _pay_once(world, session, outcome):
            return session
    else:
        _subscribe(world, session, buyer, outcome)
    world.store.drop_jobs(session["id"], "expire")
    world.update(
        session,
        customer_details=_details(world, session["customer"]),
        payment_status="paid" if outcome.succeeds else "unpaid",
        status="complete",
        url=None,
    )
    if outcome.succeeds and session["mode"] == "payment":
        _post_purchase_invoice(world, session)
    world.emit("checkout.session.completed", session)
    return session


def settle(world: World, session: Thing, *, succeeds: bool) -> Thing:
    """A payment that takes a while has arrived, or was returned."""
    if session["status"] != "complete" or session["payment_status"] != "unpaid":
        raise Problem(f"Nothing is on its way for {session['id']}.")
    if session["mode"] == "payment":
        intent = world.get("payment_intent", session["payment_intent"])
        if intent["status"] != "processing":
            raise Problem(f"Nothing is on its way for {session['id']}.")
        payments.settle(world, intent, succeeds=succeeds)
        if succeeds:
            world.update(session, payment_status="paid")
            _post_purchase_invoice(world, session)
    else:
        subscriptions.settle(world, world.get("invoice", session["invoice"]), succeeds=succeeds)
        if succeeds:
            world.update(session, payment_status="paid")
    word = "succeeded" if succeeds else "failed"
    world.emit(f"checkout.session.async_payment_{word}", session)
    return session


def line_items(world: World, session: Thing) -> list[Thing]:
    items: list[Thing] = world.store.aside(session["id"]).get("items", [])
    return items


def change_quantity(world: World, session: Thing, quantity: int) -> None:
    """The customer's, of a line item whose quantity is adjustable."""
    _needs_open(session, "changed")
    (item, *others) = line_items(world, session)
    allowed = item["adjustable_quantity"]
    if others or not allowed or not allowed["enabled"]:
        raise Problem("The quantity is not adjustable.")
    if not max(1, allowed["minimum"]) <= quantity <= allowed["maximum"]:
        raise Problem("The quantity is out of its range.")
    total = quantity * item["price"]["unit_amount"]
    changed = {**item, "quantity": quantity, "amount_subtotal": total, "amount_total": total}
    world.store.put_aside(session["id"], items=[changed])
    world.update(session, amount_subtotal=total, amount_total=total)


def returning(session: Thing, url: str) -> str:
    """An address of the shop, with the session's id where it wants it."""
    return url.replace(SESSION_ID, session["id"])


def _expiry_s(params: Thing, now_s: int, ahead_s: int) -> int:
    """By our clock; a shop that names an instant names it by its own."""
    expires_s = int(params["expires_at"]) + ahead_s if "expires_at" in params else now_s + EXPIRES_S
    if not EXPIRES_S_MIN - CLOCKS_DIFFER_S <= expires_s - now_s <= EXPIRES_S_MAX + CLOCKS_DIFFER_S:
        raise Problem(
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout"
            " Session creation.",
            param="expires_at",
        )
    return expires_s


def _check(world: World, params: Thing, mode: str) -> None:
    for name, only in MODE_ONLY.items():
        if name in params and mode != only:
            raise Problem(f"You can not pass `{name}` in `{mode}` mode.", param=name)
    if "success_url" not in params:
        raise missing_parameter("success_url")
    if "customer" in params and "customer_email" in params:
        raise Problem(
            "You may only specify one of these parameters: customer, customer_email.",
            param="customer",
        )
    if "customer" in params:
        world.get("customer", params["customer"], "customer")
    for name in ("success_url", "cancel_url"):
        if name in params and not params[name].startswith(("http://", "https://")):
            raise Problem("Not a valid URL", code="url_invalid", param=name)


def _line_items(world: World, params: Thing, mode: str) -> list[Thing]:
    if not params.get("line_items"):
        raise missing_parameter("line_items")
    made = []
    for number, given in enumerate(params["line_items"]):
        param = f"line_items[{number}]"
        _only(given, {"price", "price_data", "quantity", "adjustable_quantity", "metadata"}, param)
        price = priced(world, given, param)
        if (price["type"] == "recurring") != (mode == "subscription"):
            raise Problem(
                "You specified `payment` mode but passed a recurring price. Either switch to"
                " `subscription` mode or use only one-time prices."
                if mode == "payment"
                else "You must provide at least one recurring price in `subscription` mode when"
                " using prices.",
                param="line_items" if mode == "subscription" else param,
            )
        quantity = given.get("quantity", 1)
        if not 1 <= quantity <= QUANTITY_MAX:
            raise Problem("Invalid quantity.", param=f"{param}[quantity]")
        made.append(_item(world, price, quantity, given))
    if len({item["currency"] for item in made}) > 1:
        raise Problem("All prices on a Checkout Session must have the same currency.")
    return made


def _item(world: World, price: Thing, quantity: int, given: Thing) -> Thing:
    amount = quantity * price["unit_amount"]
    adjustable = given.get("adjustable_quantity")
    return blank(
        "item",
        id=world.new_id("li_"),
        adjustable_quantity={"maximum": 99, "minimum": 0, **adjustable} if adjustable else None,
        amount_discount=0,
        amount_subtotal=amount,
        amount_tax=0,
        amount_total=amount,
        currency=price["currency"],
        description=product_name(world, price),
        metadata=customers.kept(given.get("metadata")),
        price=price,
        quantity=quantity,
    )


def _only(given: Thing, supported: set[str], param: str) -> None:
    for name in set(given) - supported:
        raise Problem(
            f"The stand-in for Stripe does not do what {param}[{name}] asks.", param=param
        )


def _check_total(total: int, currency: str) -> None:
    if not TOTAL_MIN <= total <= TOTAL_MAX:
        raise Problem(
            f"The Checkout Session's total amount must be between {TOTAL_MIN} and {TOTAL_MAX} of"
            f" the smallest unit of {currency}.",
            code="amount_too_small" if total < TOTAL_MIN else "amount_too_large",
        )


def _customer_creation(params: Thing, mode: str) -> str | None:
    if mode == "subscription" or "customer" in params:
        return None
    return str(params.get("customer_creation", "if_required"))


def _invoice_creation(params: Thing) -> Thing:
    given = params.get("invoice_creation", {})
    data = given.get("invoice_data", {})
    _only(data, {"description", "footer", "metadata"}, "invoice_creation[invoice_data]")
    return {
        "enabled": given.get("enabled", False),
        "invoice_data": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": data.get("description"),
            "footer": data.get("footer"),
            "issuer": None,
            "metadata": customers.kept(data.get("metadata")),
            "rendering_options": None,
        },
    }


def _needs_open(session: Thing, what: str) -> None:
    if session["status"] != "open":
        raise Problem(
            f'Only Checkout Sessions with a status in ["open"] can be {what}. This Checkout'
            f" Session has a status of {session['status']}."
        )


def _buyer(world: World, session: Thing) -> Thing:
    if session["customer"]:
        return world.get("customer", session["customer"])
    made = {"email": session["customer_email"] or "customer@example.com", "name": "A Customer"}
    buyer = customers.create(world, {}, made)
    world.update(session, customer=buyer["id"])
    return buyer


def _pay_once(world: World, session: Thing, outcome: Outcome) -> bool:
    data = world.store.aside(session["id"])["payment_intent_data"]
    intent = (
        world.get("payment_intent", session["payment_intent"])
        if session["payment_intent"]
        else payments.open_intent(
            world,
            amount=session["amount_total"],
            currency=session["currency"],
            customer=session["customer"],
            metadata=customers.kept(data.get("metadata")),
            description=data.get("description"),
        )
    )
    world.update(session, payment_intent=intent["id"])
    world.update(intent, amount=session["amount_total"])
    payments.attempt(world, intent, outcome)
    return outcome.status != "failed"


def _subscribe(world: World, session: Thing, buyer: Thing, outcome: Outcome) -> None:
    aside = world.store.aside(session["id"])
    subscription = subscriptions.create(world, buyer, aside["items"], aside["subscription_data"])
    invoice = world.get("invoice", subscription["latest_invoice"])
    world.update(session, subscription=subscription["id"], invoice=invoice["id"])
    subscriptions.settled(world, invoice, outcome)


def _post_purchase_invoice(world: World, session: Thing) -> None:
    wanted: Any = session["invoice_creation"]
    if not wanted["enabled"]:
        return
    now_s, data = world.now_s(), wanted["invoice_data"]
    sold = [
        Sold(item["price"], item["quantity"], now_s, now_s) for item in line_items(world, session)
    ]
    buyer = world.get("customer", session["customer"])
    invoice = invoices.draft(
        world,
        buyer,
        sold,
        reason="manual",
        period=(now_s, now_s),
        metadata=data["metadata"],
        advances=False,
    )
    world.update(invoice, description=data["description"], footer=data["footer"])
    intent = world.get("payment_intent", session["payment_intent"])
    invoices.finalize(world, invoice, intent=intent)
    invoices.received(world, invoice, invoices.default_payment(world, invoice))
    world.update(session, invoice=invoice["id"])


def _details(world: World, customer: str | None) -> Thing:
    payer = world.store.find(customer or "") or {}
    return {
        "address": dict(NO_ADDRESS),
        "business_name": None,
        "email": payer.get("email"),
        "individual_name": None,
        "name": payer.get("name"),
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }
