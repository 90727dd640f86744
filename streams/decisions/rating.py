"""What does it cost? Price as of the event's time, rounded half up once, in unbounded integers."""

from typing import Final

from schemas.records import Price, Prices
from streams.decisions.attribution import Validity, as_of

PER_MICRO_AND_MILLION: Final = 10**12
"""A price is for a million units and a quantity in millionths of one."""
_HALF: Final = PER_MICRO_AND_MILLION // 2


def price_as_of(prices: Prices | None, validity: Validity) -> Price | None:
    """The organization's own price where it has one by then, else that of the default book."""
    if prices is None:
        return None
    return as_of(prices.organization, validity) or as_of(prices.default, validity)


def cost_micro(quantity_micro: int, micro_per_million_units: int) -> int:
    """Micro-credits for a quantity ≥ 0, half a micro-credit rounded up. May exceed Int64."""
    return (quantity_micro * micro_per_million_units + _HALF) // PER_MICRO_AND_MILLION
