"""Subscriptions: periods, renewals, dunning, ends.

https://docs.stripe.com/billing/subscriptions/overview. A renewal's invoice is drafted when the
period begins, finalised an hour later and then paid; a payment that fails is tried again on the
days of `DUNNING`, and then the subscription ends as the settings there say.
"""

import calendar
from datetime import UTC, datetime

from deploy.embedded.stripe import invoices, payments
from deploy.embedded.stripe.catalog import plan_of, product_name
from deploy.embedded.stripe.customers import kept, merged
from deploy.embedded.stripe.invoices import Sold
from deploy.embedded.stripe.payments import Outcome
from deploy.embedded.stripe.problems import Problem
from deploy.embedded.stripe.shapes import blank, list_of
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

DAY_S = 86_400
UPCOMING_BEFORE_S = 3 * DAY_S
DUNNING = {
    "retry_after_s": [3 * DAY_S, 5 * DAY_S, 7 * DAY_S],
    "subscription": "canceled",
    "invoice": "open",
}
"""Pauses between attempts; then what becomes of the subscription (canceled, unpaid or past_due) and
of its invoice (open, uncollectible or void)."""
MONTHS = {"month": 1, "year": 12}
SECONDS = {"day": DAY_S, "week": 7 * DAY_S}
ENDED = ("canceled", "incomplete_expired")


def create(world: World, customer: Thing, items: list[Thing], settings: Thing) -> Thing:
    """With its first invoice, finalised and not paid yet. `settings` is `subscription_data`."""
    now_s = world.now_s()
    identifier = world.new_id("sub_")
    end_s = period_end(now_s, items[0]["price"], 1)
    held = [_item(world, identifier, item, now_s, end_s) for item in items]
    subscription = blank(
        "subscription",
        id=identifier,
        automatic_tax={"disabled_reason": None, "enabled": False, "liability": None},
        billing_cycle_anchor=now_s,
        billing_mode={"flexible": None, "type": "classic"},
        cancel_at_period_end=False,
        cancellation_details={"comment": None, "feedback": None, "reason": None},
        collection_method="charge_automatically",
        created=now_s,
        currency=items[0]["price"]["currency"],
        customer=customer["id"],
        default_payment_method=world.new_id("pm_"),
        description=settings.get("description"),
        invoice_settings={"account_tax_ids": None, "issuer": {"type": "self"}},
        items=list_of(held, f"/v1/subscription_items?subscription={identifier}"),
        metadata=kept(settings.get("metadata")),
        payment_settings={
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        start_date=now_s,
        status="incomplete",
        trial_settings={"end_behavior": {"missing_payment_method": "create_invoice"}},
    )
    subscription["items"]["total_count"] = len(held)
    world.store.insert(subscription)
    world.emit("customer.subscription.created", subscription)
    invoice = invoices.draft(
        world,
        customer,
        _sold(subscription),
        reason="subscription_create",
        period=(now_s, now_s),
        subscription=subscription,
        advances=False,
    )
    world.update(invoice, auto_advance=True)
    world.update(subscription, latest_invoice=invoice["id"])
    invoices.finalize(world, invoice)
    _plan_next(world, subscription, end_s)
    return subscription


def renew(world: World, subscription: Thing) -> None:
    """The period is over: the next begins with a draft, or the subscription ends."""
    now_s = world.now_s()
    cancel_at_s = subscription["cancel_at"]
    if subscription["cancel_at_period_end"] or (cancel_at_s and cancel_at_s <= now_s):
        end(world, subscription, "cancellation_requested")
        return
    begin_s = current_period(subscription)[1]
    periods = _periods_since(subscription, begin_s) + 1
    end_s = period_end(subscription["billing_cycle_anchor"], _price(subscription), periods)
    former = current_period(subscription)
    items = [
        {**item, "current_period_start": begin_s, "current_period_end": end_s}
        for item in subscription["items"]["data"]
    ]
    customer = world.get("customer", subscription["customer"])
    is_collected = subscription["status"] != "unpaid"
    rolled = {**subscription, "items": {**subscription["items"], "data": items}}
    invoice = invoices.draft(
        world,
        customer,
        _sold(rolled),
        reason="subscription_cycle",
        period=former,
        subscription=subscription,
        advances=is_collected,
    )
    if is_collected:
        world.store.add_job(invoice["automatically_finalizes_at"], "finalize", invoice["id"])
    world.update(
        subscription,
        "customer.subscription.updated",
        items=rolled["items"],
        latest_invoice=invoice["id"],
    )
    _plan_next(world, subscription, end_s)


def collect(world: World, invoice: Thing) -> None:
    """Charge what the subscription has on file; also the retries."""
    if invoice["status"] != "open":
        return
    settled(world, invoice, payments.next_automatic_outcome(world, invoice["customer"]))


def settled(world: World, invoice: Thing, outcome: Outcome) -> None:
    """One attempt to collect, and what follows from it for the subscription."""
    if invoices.collect(world, invoice, outcome):
        after_success(world, invoice)
    elif outcome.status == "failed":
        after_failure(world, invoice)
    else:
        _stand(world, invoice, "active", only_from=("incomplete",))


def settle(world: World, invoice: Thing, *, succeeds: bool) -> None:
    """The end of a payment of it that was processing."""
    payment = invoices.default_payment(world, invoice)
    intent = world.get("payment_intent", payment["payment"]["payment_intent"])
    if intent["status"] != "processing":
        raise Problem(f"Nothing is on its way for {invoice['id']}.")
    payments.settle(world, intent, succeeds=succeeds)
    if not succeeds:
        after_failure(world, invoice)
    elif invoices.received(world, invoice, payment):
        after_success(world, invoice)


def after_success(world: World, invoice: Thing) -> None:
    _stand(world, invoice, "active", only_from=("incomplete", "past_due", "unpaid"))


def after_failure(world: World, invoice: Thing) -> None:
    """Another attempt later, or the end of dunning."""
    dunning = {**DUNNING, **world.store.setting("dunning", {})}
    pauses: list[int] = dunning["retry_after_s"]
    retries = max(0, invoice["attempt_count"] - 1)
    is_last = retries >= len(pauses) or not subscription_alive(world, invoice)
    next_s = None if is_last else world.now_s() + pauses[retries]
    world.update(invoice, "invoice.updated", next_payment_attempt=next_s)
    world.emit("invoice.payment_failed", invoice)
    if next_s is not None:
        world.store.add_job(next_s, "retry", invoice["id"])
        _stand(world, invoice, "past_due", only_from=("incomplete", "active"))
        return
    subscription = _of(world, invoice)
    if subscription is None or subscription["status"] in ENDED:
        return
    if dunning["subscription"] == "canceled":
        end(world, subscription, "payment_failed")
    else:
        _stand(
            world, invoice, dunning["subscription"], only_from=("incomplete", "active", "past_due")
        )
    if dunning["invoice"] == "void":
        invoices.void(world, invoice)
    elif dunning["invoice"] == "uncollectible":
        invoices.mark_uncollectible(world, invoice)


def after_closing(world: World, invoice: Thing) -> None:
    """Void or uncollectible by hand: nothing is owed for the latest period any more."""
    _stand(world, invoice, "active", only_from=("past_due", "unpaid"))


def update(world: World, path: Thing, params: Thing) -> Thing:
    subscription = world.get("subscription", path["id"], status=404)
    if subscription["status"] in ENDED:
        raise Problem(
            "A canceled subscription can only update its cancellation_details and metadata."
        )
    changes: Thing = {
        name: params[name] for name in ("description", "cancel_at_period_end") if name in params
    }
    if "metadata" in params:
        changes["metadata"] = merged(subscription["metadata"], params["metadata"])
    if "cancellation_details" in params:
        details = {**subscription["cancellation_details"], **params["cancellation_details"]}
        changes["cancellation_details"] = details
    if "cancel_at_period_end" in params:
        changes |= _cancelling(world, subscription, ends=params["cancel_at_period_end"])
    return world.update(subscription, "customer.subscription.updated", **changes)


def cancel(world: World, path: Thing, params: Thing) -> Thing:
    """At once."""
    for name in ("invoice_now", "prorate"):
        if params.get(name):
            raise Problem(f"The stand-in for Stripe does not do what {name} asks.", param=name)
    subscription = world.get("subscription", path["id"], status=404)
    if subscription["status"] in ENDED:
        raise Problem(
            f"No such subscription: '{path['id']}'", status=404, code="resource_missing", param="id"
        )
    return end(world, subscription, "cancellation_requested")


def end(world: World, subscription: Thing, reason: str) -> Thing:
    """What is drafted or open stays as it is and is not collected any more."""
    if subscription["status"] in ENDED:
        return subscription
    world.store.drop_jobs(subscription["id"], "renew", "upcoming")
    for invoice in world.all("invoice", customer=subscription["customer"]):
        of_it = invoices.subscription_of(invoice) == subscription["id"]
        if of_it and invoice["status"] in ("draft", "open") and invoice["auto_advance"]:
            world.store.drop_jobs(invoice["id"], "finalize", "retry")
            world.update(
                invoice,
                "invoice.updated",
                auto_advance=False,
                automatically_finalizes_at=None,
                next_payment_attempt=None,
            )
    now_s = world.now_s()
    world.update(
        subscription,
        status="canceled",
        ended_at=now_s,
        canceled_at=subscription["canceled_at"] or now_s,
        cancellation_details={**subscription["cancellation_details"], "reason": reason},
    )
    world.emit("customer.subscription.deleted", subscription)
    return subscription


def preview(world: World, path: Thing, params: Thing) -> Thing:
    """The next invoice of a subscription, as it would be."""
    if "subscription" not in params:
        raise Problem("The stand-in for Stripe previews subscriptions only.", param="subscription")
    subscription = world.get("subscription", params["subscription"], "subscription")
    if subscription["status"] in ENDED or subscription["cancel_at_period_end"]:
        raise Problem(
            "No upcoming invoices for this subscription.", code="invoice_upcoming_none", status=404
        )
    begin_s, next_s = current_period(subscription)
    periods = _periods_since(subscription, next_s) + 1
    end_s = period_end(subscription["billing_cycle_anchor"], _price(subscription), periods)
    sold = [
        Sold(line.price, line.quantity, next_s, end_s, line.subscription_item)
        for line in _sold(subscription)
    ]
    invoice = invoices.built(
        world,
        world.get("customer", subscription["customer"]),
        sold,
        reason="upcoming",
        period=(begin_s, next_s),
        subscription=subscription,
    )
    return {**invoice, "id": f"upcoming_{invoice['id']}", "created": next_s}


def announce(world: World, subscription: Thing) -> None:
    """Some days before a renewal. `invoice.upcoming` carries an invoice without an id."""
    if not subscription["cancel_at_period_end"] and subscription["status"] not in ENDED:
        invoice = preview(world, {}, {"subscription": subscription["id"]})
        del invoice["id"]
        world.emit("invoice.upcoming", invoice)


def current_period(subscription: Thing) -> tuple[int, int]:
    item = subscription["items"]["data"][0]
    return item["current_period_start"], item["current_period_end"]


def in_words(world: World, subscription: Thing) -> str:
    """Quantity, product and interval."""
    item = subscription["items"]["data"][0]
    every = item["price"]["recurring"]["interval"]
    return f"{item['quantity']} \u00d7 {product_name(world, item['price'])}, every {every}"


def period_end(anchor_s: int, price: Thing, periods: int) -> int:
    """So many periods after the anchor; in a shorter month on its last day."""
    count = price["recurring"]["interval_count"] * periods
    interval = price["recurring"]["interval"]
    if interval in SECONDS:
        return anchor_s + int(count) * SECONDS[interval]
    anchor = datetime.fromtimestamp(anchor_s, UTC)
    months = anchor.year * 12 + anchor.month - 1 + count * MONTHS[interval]
    year, month = months // 12, months % 12 + 1
    day = min(anchor.day, calendar.monthrange(year, month)[1])
    return int(anchor.replace(year=year, month=month, day=day).timestamp())


def subscription_alive(world: World, invoice: Thing) -> bool:
    subscription = _of(world, invoice)
    return subscription is not None and subscription["status"] not in ENDED


def _cancelling(world: World, subscription: Thing, *, ends: bool) -> Thing:
    details = {**subscription["cancellation_details"]}
    if ends:
        details["reason"] = "cancellation_requested"
        return {
            "cancel_at": current_period(subscription)[1],
            "canceled_at": world.now_s(),
            "cancellation_details": details,
        }
    details["reason"] = None
    return {"cancel_at": None, "canceled_at": None, "cancellation_details": details}


def _stand(world: World, invoice: Thing, status: str, *, only_from: tuple[str, ...]) -> None:
    """Its status follows its latest invoice only."""
    subscription = _of(world, invoice)
    if subscription is None or subscription["latest_invoice"] != invoice["id"]:
        return
    if subscription["status"] in only_from:
        world.update(subscription, "customer.subscription.updated", status=status)


def _of(world: World, invoice: Thing) -> Thing | None:
    identifier = invoices.subscription_of(invoice)
    return world.store.find(identifier) if identifier else None


def _plan_next(world: World, subscription: Thing, end_s: int) -> None:
    world.store.add_job(end_s - UPCOMING_BEFORE_S, "upcoming", subscription["id"])
    world.store.add_job(end_s, "renew", subscription["id"])


def _periods_since(subscription: Thing, instant_s: int) -> int:
    """How many periods after the anchor this period's begin is."""
    periods = 0
    while (
        period_end(subscription["billing_cycle_anchor"], _price(subscription), periods) < instant_s
    ):
        periods += 1
    return periods


def _price(subscription: Thing) -> Thing:
    price: Thing = subscription["items"]["data"][0]["price"]
    return price


def _item(world: World, subscription: str, item: Thing, begin_s: int, end_s: int) -> Thing:
    return blank(
        "subscription_item",
        id=world.new_id("si_"),
        created=begin_s,
        current_period_start=begin_s,
        current_period_end=end_s,
        plan=plan_of(item["price"]),
        price=item["price"],
        quantity=item["quantity"],
        subscription=subscription,
        tax_rates=[],
    )


def _sold(subscription: Thing) -> list[Sold]:
    return [
        Sold(
            item["price"],
            item["quantity"],
            item["current_period_start"],
            item["current_period_end"],
            item["id"],
        )
        for item in subscription["items"]["data"]
    ]
