"""Amounts and times as people read them."""

from datetime import UTC, datetime
from typing import Final

ZERO_DECIMAL: Final = frozenset(
    (
        *("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga"),
        *("pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"),
    )
)
"""https://docs.stripe.com/currencies#zero-decimal"""
SIGNS: Final = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}


def money(amount_minor: int, currency: str) -> str:
    """`$1,234.50`; where the currency has no sign of its own, `1,234.50 CHF`."""
    if currency in ZERO_DECIMAL:
        text = f"{amount_minor:,}"
    else:
        whole, cents = divmod(abs(amount_minor), 100)
        text = f"{'-' if amount_minor < 0 else ''}{whole:,}.{cents:02}"
    sign = SIGNS.get(currency)
    return f"{sign}{text}" if sign else f"{text} {currency.upper()}"


def day(instant_s: int) -> str:
    return f"{datetime.fromtimestamp(instant_s, UTC):%-d %B %Y}"


def moment(instant_s: int) -> str:
    return f"{datetime.fromtimestamp(instant_s, UTC):%-d %B %Y %H:%M} UTC"
