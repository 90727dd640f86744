"""Payment intents and their charges. https://docs.stripe.com/payments/paymentintents/lifecycle"""

from dataclasses import dataclass
from typing import Any

from deploy.embedded.stripe.shapes import NO_ADDRESS
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

DECLINED = "card_declined"
DEBIT_RETURNED = "payment_method_provider_decline"
CARD = {"brand": "visa", "country": "US", "exp_month": 12, "exp_year": 2034, "last4": "4242"}
DEBIT = {"bank_code": "37040044", "country": "DE", "last4": "3000"}
FAILURES = "payment_failures"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a payment ends: at once, or much later by a slow method (`processing`)."""

    status: str = "succeeded"
    code: str = DECLINED

    @property
    def succeeds(self) -> bool:
        return self.status == "succeeded"


SUCCEEDED, FAILED, PROCESSING = Outcome(), Outcome("failed"), Outcome("processing")


def open_intent(
    world: World,
    *,
    amount: int,
    currency: str,
    customer: str | None,
    metadata: Thing,
    description: str | None = None,
) -> Thing:
    intent = world.add(
        "payment_intent",
        "pi_",
        amount=amount,
        amount_capturable=0,
        amount_received=0,
        capture_method="automatic",
        confirmation_method="automatic",
        created=world.now_s(),
        currency=currency,
        customer=customer,
        description=description,
        metadata=dict(metadata),
        payment_method_types=["card"],
        payment_method_options={},
        status="requires_payment_method",
    )
    world.update(intent, client_secret=f"{intent['id']}_secret_{world.new_id('')}")
    world.emit("payment_intent.created", intent)
    return intent


def attempt(world: World, intent: Thing, outcome: Outcome) -> Thing:
    """One charge of the intent's amount; the intent follows what becomes of it."""
    slow = outcome.status == "processing"
    charge = _charge(world, intent, "sepa_debit" if slow else "card")
    if slow:
        world.update(charge, status="pending")
        _follow(world, intent, charge, status="processing")
        world.emit("charge.pending", charge)
        world.emit("payment_intent.processing", intent)
    elif outcome.succeeds:
        _succeed(world, intent, charge, "charge.succeeded")
    else:
        _fail(world, intent, charge, outcome.code)
    return charge


def settle(world: World, intent: Thing, *, succeeds: bool) -> None:
    """The end of a payment that was processing."""
    charge = world.get("charge", intent["latest_charge"])
    if succeeds:
        _succeed(world, intent, charge, "charge.succeeded")
    else:
        _fail(world, intent, charge, DEBIT_RETURNED)


def cancel_intent(world: World, intent: Thing, reason: str) -> None:
    if intent["status"] not in ("succeeded", "canceled"):
        world.update(
            intent, status="canceled", canceled_at=world.now_s(), cancellation_reason=reason
        )
        world.emit("payment_intent.canceled", intent)


def next_automatic_outcome(world: World, customer: str) -> Outcome:
    """What the customer's saved card does next; failures are ordered by the control endpoints."""
    failures = world.store.setting(FAILURES, {})
    for whose in (customer, "*"):
        ordered = failures.get(whose)
        if ordered and ordered["times"] > 0:
            left = {**ordered, "times": ordered["times"] - 1}
            world.store.set(FAILURES, {**failures, whose: left})
            return Outcome(ordered["status"], ordered["code"])
    return SUCCEEDED


def _charge(world: World, intent: Thing, method: str) -> Thing:
    payer = world.store.find(intent["customer"] or "") or {}
    charge = world.add(
        "charge",
        "ch_",
        amount=intent["amount"],
        amount_captured=0,
        amount_refunded=0,
        billing_details={
            "address": dict(NO_ADDRESS),
            "email": payer.get("email"),
            "name": payer.get("name"),
            "phone": None,
            "tax_id": None,
        },
        captured=False,
        created=world.now_s(),
        currency=intent["currency"],
        customer=intent["customer"],
        description=intent["description"],
        disputed=False,
        fraud_details={},
        metadata=dict(intent["metadata"]),
        paid=False,
        payment_intent=intent["id"],
        payment_method=world.new_id("pm_"),
        payment_method_details={"type": method, method: CARD if method == "card" else DEBIT},
        refunded=False,
        status="pending",
    )
    world.update(intent, payment_method=charge["payment_method"], payment_method_types=[method])
    return charge


def _succeed(world: World, intent: Thing, charge: Thing, event: str) -> None:
    world.update(
        charge,
        status="succeeded",
        paid=True,
        captured=True,
        amount_captured=charge["amount"],
        balance_transaction=world.new_id("txn_"),
        outcome=_outcome("approved_by_network", "authorized", "Payment complete."),
        receipt_url=f"{world.base_url}/receipts/{charge['id']}",
    )
    _follow(world, intent, charge, status="succeeded", amount_received=intent["amount"])
    world.emit(event, charge)
    world.emit("payment_intent.succeeded", intent)


def _fail(world: World, intent: Thing, charge: Thing, code: str) -> None:
    message = "Your card was declined." if code == DECLINED else f"The payment failed: {code}."
    world.update(
        charge,
        status="failed",
        failure_code=code,
        failure_message=message,
        outcome=_outcome("declined_by_network", "issuer_declined", message),
    )
    error = {"type": "card_error", "code": code, "message": message, "charge": charge["id"]}
    _follow(
        world,
        intent,
        charge,
        status="requires_payment_method",
        payment_method=None,
        last_payment_error=error,
    )
    world.emit("charge.failed", charge)
    world.emit("payment_intent.payment_failed", intent)


def _follow(world: World, intent: Thing, charge: Thing, **changes: Any) -> None:
    if changes.get("status") == "succeeded":
        changes["last_payment_error"] = None
    world.update(intent, latest_charge=charge["id"], **changes)


def _outcome(network_status: str, kind: str, message: str) -> Thing:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": network_status,
        "reason": None,
        "risk_level": "normal",
        "seller_message": message,
        "type": kind,
    }
