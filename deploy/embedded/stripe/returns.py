"""Money that goes back: refunds and disputes.

https://docs.stripe.com/api/refunds, https://docs.stripe.com/disputes/how-disputes-work
"""

from deploy.embedded.stripe.customers import kept
from deploy.embedded.stripe.problems import Problem, missing_parameter
from deploy.embedded.stripe.store import Thing
from deploy.embedded.stripe.world import World

DAY_S = 86_400
EVIDENCE_DUE_S = 9 * DAY_S
OPEN_DISPUTES = ("needs_response", "under_review")
NO_EVIDENCE: Thing = {"enhanced_evidence": {}, "uncategorized_text": None}


def refund(world: World, path: Thing, params: Thing) -> Thing:
    charge = _charge_of(world, params)
    left = charge["amount_captured"] - charge["amount_refunded"]
    amount = params.get("amount", left)
    if charge["status"] != "succeeded":
        raise Problem(f"Charge {charge['id']} has not been paid.", code="charge_not_refundable")
    if charge["disputed"] and _open_dispute(world, charge):
        raise Problem(f"Charge {charge['id']} has been charged back.", code="charge_disputed")
    if not left:
        raise Problem(
            f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded"
        )
    if not 0 < amount <= left:
        raise Problem(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            if amount > left
            else "Invalid positive integer",
            code=None if amount > left else "parameter_invalid_integer",
            param="amount",
        )
    made = world.add(
        "refund",
        "re_",
        amount=amount,
        balance_transaction=world.new_id("txn_"),
        charge=charge["id"],
        created=world.now_s(),
        currency=charge["currency"],
        metadata=kept(params.get("metadata")),
        payment_intent=charge["payment_intent"],
        reason=params.get("reason"),
        status="succeeded",
    )
    refunded = charge["amount_refunded"] + amount
    before = {"amount_refunded": charge["amount_refunded"], "refunded": charge["refunded"]}
    world.update(charge, amount_refunded=refunded, refunded=refunded == charge["amount"])
    world.emit("refund.created", made)
    world.emit("charge.refunded", charge, before)
    return made


def fail_refund(world: World, made: Thing) -> None:
    """The bank could not take it back: the money is ours again."""
    if made["status"] != "succeeded":
        raise Problem(f"Refund {made['id']} is {made['status']}.")
    world.update(
        made,
        "refund.updated",
        status="failed",
        failure_reason="expired_or_canceled_card",
        failure_balance_transaction=world.new_id("txn_"),
    )
    charge = world.get("charge", made["charge"])
    world.update(
        charge,
        "charge.updated",
        amount_refunded=charge["amount_refunded"] - made["amount"],
        refunded=False,
    )
    world.emit("refund.failed", made)


def open_dispute(world: World, charge: Thing, amount: int | None, reason: str) -> Thing:
    if charge["status"] != "succeeded" or charge["disputed"]:
        raise Problem(f"Charge {charge['id']} cannot be disputed (again).")
    now_s = world.now_s()
    dispute = world.add(
        "dispute",
        "du_",
        amount=charge["amount"] if amount is None else amount,
        charge=charge["id"],
        created=now_s,
        currency=charge["currency"],
        evidence=dict(NO_EVIDENCE),
        evidence_details={
            "due_by": now_s + EVIDENCE_DUE_S,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        is_charge_refundable=False,
        payment_intent=charge["payment_intent"],
        payment_method_details={
            "card": {
                "brand": "visa",
                "case_type": "chargeback",
                "network": "visa",
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        reason=reason,
        status="needs_response",
    )
    world.update(charge, "charge.updated", disputed=True)
    world.emit("charge.dispute.created", dispute)
    before: Thing = {"balance_transactions": []}
    world.update(dispute, balance_transactions=[_movement(world, dispute, -dispute["amount"])])
    world.emit("charge.dispute.funds_withdrawn", dispute, before)
    return dispute


def close_dispute(world: World, path: Thing, params: Thing) -> Thing:
    """The merchant gives in: lost."""
    return decide(world, world.get("dispute", path["id"], status=404), won=False)


def decide(world: World, dispute: Thing, *, won: bool) -> Thing:
    if dispute["status"] not in OPEN_DISPUTES:
        raise Problem("This dispute is already closed.", code="dispute_closed")
    before = {"status": dispute["status"]}
    world.update(dispute, status="won" if won else "lost")
    world.emit("charge.dispute.closed", dispute, before)
    if won:
        former = list(dispute["balance_transactions"])
        movements = [*former, _movement(world, dispute, dispute["amount"])]
        world.update(dispute, balance_transactions=movements)
        world.emit("charge.dispute.funds_reinstated", dispute, {"balance_transactions": former})
    return dispute


def _charge_of(world: World, params: Thing) -> Thing:
    if "charge" in params:
        return world.get("charge", params["charge"], "charge")
    if "payment_intent" not in params:
        raise missing_parameter("payment_intent")
    intent = world.get("payment_intent", params["payment_intent"], "payment_intent")
    if not intent["latest_charge"]:
        raise Problem(
            "This PaymentIntent does not have a successful charge to refund.",
            param="payment_intent",
        )
    return world.get("charge", intent["latest_charge"])


def _open_dispute(world: World, charge: Thing) -> bool:
    disputes = world.all("dispute", charge=charge["id"])
    return any(dispute["status"] in OPEN_DISPUTES for dispute in disputes)


def _movement(world: World, dispute: Thing, amount: int) -> Thing:
    now_s = world.now_s()
    return {
        "id": world.new_id("txn_"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": now_s,
        "balance_type": "payments",
        "created": now_s,
        "currency": dispute["currency"],
        "description": f"Chargeback {'withdrawal' if amount < 0 else 'reversal'}"
        f" for {dispute['charge']}",
        "exchange_rate": None,
        "fee": 0,
        "fee_details": [],
        "net": amount,
        "reporting_category": "dispute" if amount < 0 else "dispute_reversal",
        "source": dispute["id"],
        "status": "available",
        "type": "adjustment",
    }
