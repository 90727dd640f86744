"""Who answers which request, where that is more than one call: lists, reads, closings."""

from collections.abc import Callable

from deploy.embedded.stripe import checkout, customers, invoices, payments, subscriptions
from deploy.embedded.stripe.answers import (
    Filters,
    equal,
    first_page,
    like,
    matching,
    one_of,
    page,
    within,
)
from deploy.embedded.stripe.problems import Problem, missing
from deploy.embedded.stripe.shapes import blank
from deploy.embedded.stripe.store import INDEXED, Thing
from deploy.embedded.stripe.world import World

Handler = Callable[[World, Thing, Thing], Thing]


def _by_status(subscription: Thing, status: str) -> bool:
    ended = subscription["status"] in subscriptions.ENDED
    return status == "all" or (ended if status == "ended" else subscription["status"] == status)


CREATED = {"created": within("created")}
SUBSCRIPTION_FILTERS: Filters = {
    **CREATED,
    "customer": equal("customer"),
    "status": _by_status,
}
SESSION_FILTERS: Filters = {
    **CREATED,
    "customer": equal("customer"),
    "payment_intent": equal("payment_intent"),
    "status": equal("status"),
    "subscription": equal("subscription"),
}
INVOICE_FILTERS: Filters = {
    **CREATED,
    "collection_method": equal("collection_method"),
    "customer": equal("customer"),
    "status": equal("status"),
    "subscription": equal("parent", "subscription_details", "subscription"),
}
EVENT_FILTERS: Filters = {**CREATED, "type": like("type"), "types": one_of("type")}
PAID_FILTERS: Filters = {
    **CREATED,
    "charge": equal("charge"),
    "customer": equal("customer"),
    "payment_intent": equal("payment_intent"),
}


def _payment_of(payment: Thing, wanted: Thing) -> bool:
    held = payment["payment"]
    return all(held.get(name) == value for name, value in wanted.items())


INVOICE_PAYMENT_FILTERS: Filters = {
    **CREATED,
    "invoice": equal("invoice"),
    "payment": _payment_of,
    "status": equal("status"),
}


def get(kind: str) -> Handler:
    return lambda world, path, params: world.get(kind, path["id"], status=404)


def listed(kind: str, url: str, filters: Filters) -> Handler:
    def answer(world: World, path: Thing, params: Thing) -> Thing:
        indexed = {name: params[name] for name in INDEXED if name in params and name in filters}
        if "ending_before" in params:
            found = world.store.newest_first(kind, **indexed)
            return page(matching(found, params, filters), params, url)
        after = params.get("starting_after", "")
        if after and (world.store.find(after) or {}).get("object") != kind:
            raise missing(kind.replace(".", " "), after, "starting_after")
        found = world.store.newest_first(kind, after, **indexed)
        return first_page(matching(found, params, filters), params, url)

    return answer


def list_subscriptions(world: World, path: Thing, params: Thing) -> Thing:
    """Without a status: those that are not canceled."""
    found = world.store.newest_first("subscription")
    if "status" not in params:
        found = (thing for thing in found if thing["status"] != "canceled")
    return page(matching(found, params, SUBSCRIPTION_FILTERS), params, "/v1/subscriptions")


def account(world: World, path: Thing, params: Thing) -> Thing:
    return blank(
        "account",
        id=world.store.setting("account"),
        business_profile={"name": invoices.ACCOUNT_NAME, "support_email": None, "url": None},
        business_type="company",
        capabilities={"card_payments": "active"},
        charges_enabled=True,
        country="US",
        created=0,
        default_currency="usd",
        details_submitted=True,
        payouts_enabled=True,
        settings={
            "branding": {"icon": None, "logo": None, "primary_color": None},
            "card_payments": {"statement_descriptor_prefix": None},
            "dashboard": {"display_name": invoices.ACCOUNT_NAME, "timezone": "Etc/UTC"},
            "payments": {"statement_descriptor": None},
        },
        type="standard",
    )


def session_items(world: World, path: Thing, params: Thing) -> Thing:
    session = world.get("checkout.session", path["id"], status=404)
    url = f"/v1/checkout/sessions/{session['id']}/line_items"
    return page(checkout.line_items(world, session), params, url)


def invoice_lines(world: World, path: Thing, params: Thing) -> Thing:
    invoice = world.get("invoice", path["id"], status=404)
    return page(invoice["lines"]["data"], params, f"/v1/invoices/{invoice['id']}/lines")


def update_metadata(kind: str, event: str | None) -> Handler:
    def update(world: World, path: Thing, params: Thing) -> Thing:
        thing = world.get(kind, path["id"], status=404)
        metadata = customers.merged(thing["metadata"], params.get("metadata", {}))
        return world.update(thing, event, metadata=metadata)

    return update


def finalize_invoice(world: World, path: Thing, params: Thing) -> Thing:
    invoice = world.get("invoice", path["id"], status=404)
    return invoices.finalize(world, invoice)


def pay_invoice(world: World, path: Thing, params: Thing) -> Thing:
    """A declined card is an answer of its own, and the attempt counts."""
    invoice = world.get("invoice", path["id"], status=404)
    if invoice["status"] == "draft":
        invoices.finalize(world, invoice)
    if invoice["status"] not in invoices.PAYABLE:
        raise Problem(f"Invoice is already {invoice['status']}", code="invoice_not_editable")
    if params.get("paid_out_of_band"):
        invoices.pay_out_of_band(world, invoice)
        subscriptions.after_success(world, invoice)
        return world.get("invoice", invoice["id"])
    outcome = payments.next_automatic_outcome(world, invoice["customer"])
    subscriptions.settled(world, invoice, outcome)
    if outcome.status == "failed":
        raise Declined(outcome.code)
    return world.get("invoice", invoice["id"])


class Declined(Problem):
    """What was tried stays as it is, although the answer is an error."""

    def __init__(self, code: str) -> None:
        super().__init__("Your card was declined.", status=402, kind="card_error", code=code)


def closing(close: Callable[[World, Thing], Thing]) -> Handler:
    def handler(world: World, path: Thing, params: Thing) -> Thing:
        invoice = world.get("invoice", path["id"], status=404)
        close(world, invoice)
        subscriptions.after_closing(world, invoice)
        return world.get("invoice", invoice["id"])

    return handler
