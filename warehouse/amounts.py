"""Whole numbers of small units to exact decimal text. Never floats. Pure."""

from typing import Final

MICRO_DIGITS: Final = 6
PICO_DIGITS: Final = 12
"""Money is micro-credits times micro-units a credit: 10^-12 of the currency's unit."""
SHOWN_DIGITS: Final = 2


def micro_text(micro: int) -> str:
    """`1234567` → `1.234567`; always exact, with at least two decimals."""
    return decimal_text(micro, MICRO_DIGITS)


def pico_text(pico: int) -> str:
    return decimal_text(pico, PICO_DIGITS)


def decimal_text(units: int, digits: int) -> str:
    """`units` / 10^`digits`, without trailing zeros beyond the second decimal."""
    whole, fraction = divmod(abs(units), 10**digits)
    decimals = f"{fraction:0{digits}d}".rstrip("0").ljust(SHOWN_DIGITS, "0")
    return f"{'-' if units < 0 else ''}{whole}.{decimals}"
