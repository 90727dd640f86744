"""Profiles, purchases, subscriptions and invoices as `/v1` and the commands show them."""

import re
from datetime import datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from api.errors import Refused
from api.reading import billing, website
from api.reading.balances import pool_figures
from api.reading.billing import UNFINISHED
from api.reading.spend import Spend
from api.rules.currencies import money_text
from api.storage.models import Website
from api.storage.purchases import STRIPE, BillingProfile, Invoice, Purchase, Subscription
from api.web.shapes.balances import shown_figures
from api.web.shapes.common import iso
from schemas.records import PoolKind

HOST_NAME: Final = re.compile(
    r"(?:https?://)?((?:[a-z0-9-]{1,63}\.)+[a-z]{2,63})(?:/.*)?", re.IGNORECASE
)
NO_FIGURES: Final = dict.fromkeys(
    ("total_micro", "used_micro", "remaining_micro", "next_reset_at"), None
)


def shown_billing(
    session: Session, organization_id: str, pool_kind: PoolKind, pool_id: str
) -> dict[str, Any]:
    """What is bought for a pool and by whom it is paid; without the figures, for which `monthly`
    and `one_time` only say how many packages there are."""
    whose = (organization_id, pool_kind, pool_id)
    profile = billing.open_profile(session, *whose)
    subscriptions = billing.live_subscriptions(session, *whose)
    if pool_kind == "group":
        sites = billing.websites_of(session, organization_id, pool_id)
        count = billing.website_count(session, organization_id, pool_id)
    else:
        sites, count = [website(session, organization_id, pool_id)], 1
    return {
        "profile": shown_profile(profile) if profile else None,
        "partner_managed": profile is not None and profile.provider != STRIPE,
        "website_count": count,
        "websites": [_shown_site(site) for site in sites],
        "monthly": {"packages": sum(purchase.quantity for purchase, _ in subscriptions)},
        "one_time": {"packages": billing.one_time_packages(session, *whose)},
        "subscriptions": [shown_subscription(*row) for row in subscriptions],
        "waiting": [shown_purchase(row) for row in billing.waiting_purchases(session, *whose)],
    }


def with_figures(
    answer: dict[str, Any], spend: Spend, pool: tuple[str, PoolKind, str], now: datetime
) -> dict[str, Any]:
    """The same with what is left; or with why nobody can tell, since what was bought is shown all
    the same. `pool` is the organization's id, the kind and the pool's id."""
    figures: dict[str, Any] = {}
    missing = None
    try:
        figures = shown_figures(pool_figures(spend, *pool, now))
    except Refused as refused:
        missing = refused.message
    kinds = {
        kind: NO_FIGURES | figures.get(kind, {}) | answer[kind] for kind in ("monthly", "one_time")
    }
    debt_micro = figures.get("debt_micro")
    return answer | kinds | {"debt_micro": debt_micro, "figures_missing": missing}


def _shown_site(row: Website) -> dict[str, Any]:
    host = HOST_NAME.fullmatch(row.name.strip())
    address = f"https://{host[1].lower()}" if host else None
    return {
        "id": row.id,
        "name": row.name,
        "address": address,
        "icon_url": f"{address}/favicon.ico" if address else None,
    }


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
