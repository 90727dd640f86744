"""Purchases as the API makes them, and what a provider may say about them, in few words."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from api.payments import seen as saw
from api.payments.settling import PurchaseKey, Settled, revision_of, settle
from api.payments.terms import Options
from api.rules.change import Control
from api.rules.groups import create_group
from api.storage.ledgers import Grant
from api.storage.purchases import BillingProfile, Package, Purchase
from tests.api.conftest import ADMIN

ORGANIZATION = "org_a"
PACKAGE_CREDITS = 1_000_000
PRICE = 900
START = datetime(2026, 11, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


def new_purchase(
    control: Control,
    kind: str = "one_time",
    quantity: int = 3,
    *,
    purchase_id: str = "pur_1",
    provider: str = "stripe",
    group_id: str = "group_a",
    **values: Any,
) -> PurchaseKey:
    """A purchase of so many packages for a group's pool; group and profile are made with it."""
    with control.change(ORGANIZATION, ADMIN) as change:
        now = change.now
        session = change.session
        profile_id = f"profile_{group_id}"
        if session.get(Package, "pack") is None:
            package = Package(
                id="pack",
                name="Pack",
                credits_micro=PACKAGE_CREDITS,
                price_minor=PRICE,
                currency="usd",
                sold_one_time=True,
                sold_monthly=True,
                created_at=now,
                updated_at=now,
            )
            session.add(package)
        if session.get(BillingProfile, (ORGANIZATION, profile_id)) is None:
            create_group(change, f"Group {group_id}", group_id)
            profile = BillingProfile(
                organization_id=ORGANIZATION,
                id=profile_id,
                pool_kind="group",
                pool_id=group_id,
                provider=provider,
                created_at=now,
            )
            session.add(profile)
        session.flush()
        row: dict[str, Any] = {
            "organization_id": ORGANIZATION,
            "id": purchase_id,
            "profile_id": profile_id,
            "provider": provider,
            "package_id": "pack",
            "package_name": "Pack",
            "kind": kind,
            "quantity": quantity,
            "package_credits_micro": PACKAGE_CREDITS,
            "package_price_minor": PRICE,
            "currency": "usd",
            "session_id": "cs_1",
            "bought_by": "member_1",
            "created_at": now,
            "updated_at": now,
        }
        session.add(Purchase(**(row | values)))
    return PurchaseKey(ORGANIZATION, purchase_id)


def paid_session(*payments: saw.Payment, **changes: Any) -> saw.Session:
    """Three packages, paid in full."""
    values: dict[str, Any] = {
        "id": "cs_1",
        "status": "complete",
        "payment_status": "paid",
        "subtotal_minor": 3 * PRICE,
        "currency": "usd",
        "quantity": 3,
        "payments": payments or (saw.Payment("py_1", 3 * PRICE),),
    }
    return saw.Session(**(values | changes))


def invoice(number: int, status: str, *payments: saw.Payment, **changes: Any) -> saw.Invoice:
    """The invoice of the first, second, … period of three packages a month."""
    start = START + (number - 1) * MONTH
    line = {
        "id": f"il_{number}",
        "quantity": 3,
        "amount_minor": 3 * PRICE,
        "currency": "usd",
        "period_start": start,
        "period_end": start + MONTH,
    }
    line |= changes.pop("line", {})
    is_paid = status == "paid"
    if is_paid and not payments:
        payments = (saw.Payment(f"py_{number}", 3 * PRICE),)
    values: dict[str, Any] = {
        "id": f"in_{number}",
        "status": status,
        "billing_reason": "subscription_create" if number == 1 else "subscription_cycle",
        "currency": "usd",
        "amount_paid_minor": 3 * PRICE if is_paid else 0,
        "created_at": start,
        "lines": (saw.Line(**line),),  # type: ignore[arg-type]
        "payments": payments,
    }
    return saw.Invoice(**(values | changes))


def subscription(number: int, status: str = "active", **changes: Any) -> saw.Subscription:
    """In its first, second, … period."""
    start = START + (number - 1) * MONTH
    values: dict[str, Any] = {
        "id": "sub_1",
        "status": status,
        "cancel_at_period_end": False,
        "quantity": 3,
        "period_start": start,
        "period_end": start + MONTH,
    }
    return saw.Subscription(**(values | changes))


def look(
    control: Control, key: PurchaseKey, seen: saw.Seen, options: Options | None = None
) -> Settled:
    """Settles what is seen now."""
    return settle(control, key, revision_of(control, key), seen, options or Options())


def grants(control: Control) -> dict[str, tuple[int, int]]:
    """Of each grant the packages that were granted and that are left."""
    with control.store.read() as session:
        return {
            row.id: (
                row.amount_micro,
                row.amount_micro - row.revoked_micro,
            )
            for row in session.scalars(select(Grant).order_by(Grant.id))
        }
