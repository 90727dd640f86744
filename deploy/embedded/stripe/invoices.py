"""Invoices, their lines and payments. https://docs.stripe.com/invoicing/overview

draft → (finalised) open → paid, void or uncollectible. An uncollectible one can still be paid.
"""

from dataclasses import dataclass

from deploy.embedded.stripe import payments
from deploy.embedded.stripe.catalog import product_name
from deploy.embedded.stripe.money import money
from deploy.embedded.stripe.payments import Outcome
from deploy.embedded.stripe.problems import Problem
from deploy.embedded.stripe.shapes import NO_TAX, blank, list_of
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

FINALISED_AFTER_S = 3_600
PAYABLE = ("open", "uncollectible")
NO_PAYMENT_SETTINGS = dict.fromkeys(
    ("default_mandate", "payment_method_options", "payment_method_types")
)
NO_TRANSITIONS = dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at"))
ACCOUNT_NAME = "Stand-in for Stripe"


@dataclass(frozen=True, slots=True)
class Sold:
    """What one line is for."""

    price: Thing
    quantity: int
    begin_s: int
    end_s: int
    subscription_item: str | None = None


def draft(
    world: World,
    customer: Thing,
    sold: list[Sold],
    *,
    reason: str,
    period: tuple[int, int],
    subscription: Thing | None = None,
    metadata: Thing | None = None,
    advances: bool = True,
) -> Thing:
    """Emits `invoice.created`. `advances`: Stripe finalises and collects it by itself."""
    invoice = built(world, customer, sold, reason=reason, period=period, subscription=subscription)
    finalises_s = world.now_s() + FINALISED_AFTER_S if advances else None
    invoice |= {"metadata": dict(metadata or {}), "auto_advance": advances}
    invoice["automatically_finalizes_at"] = finalises_s
    world.store.insert(invoice)
    world.emit("invoice.created", invoice)
    return invoice


def built(
    world: World,
    customer: Thing,
    sold: list[Sold],
    *,
    reason: str,
    period: tuple[int, int],
    subscription: Thing | None,
) -> Thing:
    """An invoice as it would be, which nobody has kept."""
    identifier = world.new_id("in_")
    lines = [_line(world, identifier, line, subscription) for line in sold]
    total = sum(line["amount"] for line in lines)
    return blank(
        "invoice",
        id=identifier,
        account_country="US",
        account_name=ACCOUNT_NAME,
        amount_due=total,
        amount_overpaid=0,
        amount_paid=0,
        amount_remaining=total,
        amount_shipping=0,
        attempt_count=0,
        attempted=False,
        auto_advance=False,
        automatic_tax={**NO_TAX, "disabled_reason": None},
        billing_reason=reason,
        collection_method="charge_automatically",
        created=world.now_s(),
        currency=sold[0].price["currency"],
        customer=customer["id"],
        customer_email=customer["email"],
        customer_name=customer["name"],
        customer_tax_exempt="none",
        customer_tax_ids=[],
        issuer={"type": "self"},
        lines=list_of(lines, f"/v1/invoices/{identifier}/lines"),
        parent=_parent(subscription),
        payment_settings=dict(NO_PAYMENT_SETTINGS),
        period_start=period[0],
        period_end=period[1],
        post_payment_credit_notes_amount=0,
        pre_payment_credit_notes_amount=0,
        starting_balance=0,
        status="draft",
        status_transitions=dict(NO_TRANSITIONS),
        subtotal=total,
        subtotal_excluding_tax=total,
        total=total,
        total_discount_amounts=[],
        total_excluding_tax=total,
        total_pretax_credit_amounts=[],
        total_taxes=[],
    )


def finalize(world: World, invoice: Thing, *, intent: Thing | None = None) -> Thing:
    """It gets its number, its addresses and the payment it waits for (`intent`: made before)."""
    if invoice["status"] != "draft":
        raise Problem(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice."
        )
    customer = world.store.find(invoice["customer"]) or {}
    prefix = customer.get("invoice_prefix") or "GONE0000"
    sequence = customer.get("next_invoice_sequence") or 1
    if not customer.get("deleted"):
        world.update(customer, next_invoice_sequence=sequence + 1)
    hosted = f"{world.base_url}/i/{invoice['id']}"
    now_s = world.now_s()
    world.store.drop_jobs(invoice["id"], "finalize")
    world.update(
        invoice,
        automatically_finalizes_at=None,
        effective_at=now_s,
        ending_balance=0,
        hosted_invoice_url=hosted,
        invoice_pdf=f"{hosted}/pdf",
        number=f"{prefix}-{sequence:04}",
        status="open",
        status_transitions={**invoice["status_transitions"], "finalized_at": now_s},
    )
    if invoice["amount_remaining"]:
        add_payment(world, invoice, invoice["amount_remaining"], intent=intent, is_default=True)
    world.emit("invoice.finalized", invoice)
    if not invoice["amount_remaining"]:
        _paid(world, invoice)
    return invoice


def add_payment(
    world: World, invoice: Thing, amount: int, *, intent: Thing | None, is_default: bool
) -> Thing:
    """One of possibly several payments of an invoice."""
    metadata: Thing = {}
    intent = intent or payments.open_intent(
        world,
        amount=amount,
        currency=invoice["currency"],
        customer=invoice["customer"],
        metadata=metadata,
        description="Subscription creation"
        if invoice["billing_reason"] == "subscription_create"
        else "Subscription update",
    )
    payment = world.add(
        "invoice_payment",
        "inpay_",
        amount_requested=amount,
        created=world.now_s(),
        currency=invoice["currency"],
        invoice=invoice["id"],
        is_default=is_default,
        payment={"payment_intent": intent["id"], "type": "payment_intent"},
        status="open",
        status_transitions={"canceled_at": None, "paid_at": None},
    )
    world.store.put_aside(intent["id"], invoice=invoice["id"], payment=payment["id"])
    return payment


def collect(world: World, invoice: Thing, outcome: Outcome) -> bool:
    """Try its default payment; whether it is paid now. What follows from a failure is the
    subscription's (`subscriptions.after_failure`)."""
    payment = default_payment(world, invoice)
    intent = world.get("payment_intent", payment["payment"]["payment_intent"])
    world.update(invoice, attempted=True, attempt_count=invoice["attempt_count"] + 1)
    payments.attempt(world, intent, outcome)
    if outcome.succeeds:
        return received(world, invoice, payment)
    return False


def received(world: World, invoice: Thing, payment: Thing) -> bool:
    """A payment of it has arrived; whether the whole is paid now."""
    now_s = world.now_s()
    amount = payment["amount_requested"]
    world.update(
        payment,
        amount_paid=amount,
        status="paid",
        status_transitions={**payment["status_transitions"], "paid_at": now_s},
    )
    remaining = invoice["amount_remaining"] - amount
    world.update(invoice, amount_paid=invoice["amount_paid"] + amount, amount_remaining=remaining)
    world.emit("invoice_payment.paid", payment)
    if remaining <= 0:
        _paid(world, invoice)
    return bool(remaining <= 0)


def split(world: World, invoice: Thing, amounts: list[int]) -> list[Thing]:
    """Several payments in place of one; the last is the default one, of what is left."""
    left = invoice["amount_remaining"] - sum(amounts[:-1])
    if left <= 0 or left != amounts[-1] or min(amounts) <= 0:
        raise Problem("The amounts do not add up to what the invoice still asks for.")
    default = default_payment(world, invoice)
    former = world.get("payment_intent", default["payment"]["payment_intent"])
    world.update(former, amount=left)
    world.update(default, amount_requested=left)
    parts = [
        add_payment(world, invoice, amount, intent=None, is_default=False)
        for amount in amounts[:-1]
    ]
    return [*parts, default]


def pay_out_of_band(world: World, invoice: Thing) -> None:
    _cancel_open_payments(world, invoice, "void_invoice")
    world.update(invoice, amount_paid=invoice["amount_due"], amount_remaining=0)
    _paid(world, invoice)


def void(world: World, invoice: Thing) -> Thing:
    return _closed(world, invoice, "void", "voided_at", "invoice.voided")


def mark_uncollectible(world: World, invoice: Thing) -> Thing:
    return _closed(
        world, invoice, "uncollectible", "marked_uncollectible_at", "invoice.marked_uncollectible"
    )


def default_payment(world: World, invoice: Thing) -> Thing:
    return world.all("invoice_payment", invoice=invoice["id"], is_default=True)[0]


def subscription_of(invoice: Thing) -> str | None:
    parent = invoice["parent"] or {}
    details = parent.get("subscription_details") or {}
    return details.get("subscription")


def _closed(world: World, invoice: Thing, status: str, stamp: str, event: str) -> Thing:
    if invoice["status"] not in PAYABLE or invoice["status"] == status:
        raise Problem(
            f"You can only pass in open invoices. This invoice isn't open: {invoice['status']}."
        )
    world.store.drop_jobs(invoice["id"], "retry")
    if status == "void":
        _cancel_open_payments(world, invoice, "void_invoice")
    world.update(
        invoice,
        auto_advance=False,
        next_payment_attempt=None,
        status=status,
        status_transitions={**invoice["status_transitions"], stamp: world.now_s()},
    )
    world.emit(event, invoice)
    return invoice


def _cancel_open_payments(world: World, invoice: Thing, reason: str) -> None:
    now_s = world.now_s()
    for payment in world.all("invoice_payment", invoice=invoice["id"], status="open"):
        intent = world.get("payment_intent", payment["payment"]["payment_intent"])
        payments.cancel_intent(world, intent, reason)
        stamps = {**payment["status_transitions"], "canceled_at": now_s}
        world.update(payment, status="canceled", status_transitions=stamps)


def _paid(world: World, invoice: Thing) -> None:
    world.store.drop_jobs(invoice["id"], "retry")
    world.update(
        invoice,
        attempted=True,
        auto_advance=False,
        next_payment_attempt=None,
        status="paid",
        status_transitions={**invoice["status_transitions"], "paid_at": world.now_s()},
    )
    world.emit("invoice.paid", invoice)
    world.emit("invoice.payment_succeeded", invoice)


def _in_words(world: World, sold: Sold) -> str:
    name, recurring = product_name(world, sold.price), sold.price["recurring"]
    if not recurring:
        return name
    each = money(sold.price["unit_amount"], sold.price["currency"])
    return f"{sold.quantity} \u00d7 {name} (at {each} / {recurring['interval']})"


def _parent(subscription: Thing | None) -> Thing | None:
    if subscription is None:
        return None
    details = {"metadata": dict(subscription["metadata"]), "subscription": subscription["id"]}
    kind = "subscription_details"
    return {"quote_details": None, kind: details, "type": kind}


def _line(world: World, invoice: str, sold: Sold, subscription: Thing | None) -> Thing:
    amount = sold.quantity * sold.price["unit_amount"]
    if sold.subscription_item and subscription:
        kind = "subscription_item_details"
        details = {
            "invoice_item": None,
            "proration": False,
            "proration_details": {"credited_items": None},
            "subscription": subscription["id"],
            "subscription_item": sold.subscription_item,
        }
    else:
        kind = "invoice_item_details"
        details = {
            "invoice_item": world.new_id("ii_"),
            "proration": False,
            "proration_details": {"credited_items": None},
            "subscription": None,
        }
    parent = {"invoice_item_details": None, "subscription_item_details": None, "type": kind}
    return blank(
        "line_item",
        id=world.new_id("il_"),
        amount=amount,
        currency=sold.price["currency"],
        description=_in_words(world, sold),
        discount_amounts=[],
        discountable=True,
        invoice=invoice,
        metadata=dict(subscription["metadata"]) if subscription else {},
        parent={**parent, kind: details},
        period={"start": sold.begin_s, "end": sold.end_s},
        pretax_credit_amounts=[],
        pricing={
            "price_details": {"price": sold.price["id"], "product": sold.price["product"]},
            "type": "price_details",
            "unit_amount_decimal": sold.price["unit_amount_decimal"],
        },
        quantity=sold.quantity,
        quantity_decimal=str(sold.quantity),
        subscription=subscription["id"] if subscription else None,
        subtotal=amount,
        taxes=[],
    )
