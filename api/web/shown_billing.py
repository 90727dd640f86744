"""Profiles, purchases, subscriptions and invoices as answers of `/v1` show them."""

from datetime import datetime
from typing import Any

from api.reading.billing import UNFINISHED
from api.rules.currencies import money_text
from api.storage.purchases import STRIPE, BillingProfile, Invoice, Purchase, Subscription
from api.web.shapes.common import iso


def shown_profile(row: BillingProfile) -> dict[str, Any]:
    return {
        "id": row.id,
        "provider": row.provider,
        "partner_managed": row.provider != STRIPE,
        "enabled_at": iso(row.created_at),
    }


def shown_purchase(row: Purchase) -> dict[str, Any]:
    return _sold(row) | {
        "package_id": row.package_id,
        "kind": row.kind,
        "state": row.state,
        "message": row.message,
        "checkout_url": row.checkout_url if row.state in UNFINISHED else None,
        "bought_by": row.bought_by,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }


def shown_subscription(purchase: Purchase, row: Subscription) -> dict[str, Any]:
    return _sold(purchase) | {
        "status": row.status,
        "cancel_at_period_end": row.cancel_at_period_end,
        "current_period_end": iso_or_none(row.current_period_end),
    }


def _sold(purchase: Purchase) -> dict[str, Any]:
    """All packages of it together; of a subscription, each month."""
    amount_minor = purchase.quantity * purchase.package_price_minor
    return {
        "id": purchase.id,
        "package_name": purchase.package_name,
        "quantity": purchase.quantity,
        "credits_micro": purchase.quantity * purchase.package_credits_micro,
        "amount_minor": amount_minor,
        "currency": purchase.currency,
        "amount_text": money_text(amount_minor, purchase.currency),
    }


def shown_invoice(row: Invoice, purchase: Purchase) -> dict[str, Any]:
    return {
        "number": row.number,
        "amount_minor": row.amount_paid_minor,
        "refunded_minor": row.amount_refunded_minor,
        "currency": row.currency,
        "amount_text": money_text(row.amount_paid_minor, row.currency),
        "credits_micro": row.credits_micro,
        "kind": purchase.kind,
        "package_name": purchase.package_name,
        "quantity": purchase.quantity,
        "purchase_id": purchase.id,
        "period_start": iso_or_none(row.period_start),
        "period_end": iso_or_none(row.period_end),
        "paid_at": iso_or_none(row.paid_at),
        "hosted_invoice_url": row.hosted_invoice_url,
        "invoice_pdf": row.invoice_pdf,
    }


def iso_or_none(moment: datetime | None) -> str | None:
    return iso(moment) if moment else None
