"""Quantities as producers write them, made exact: Int64 millionths of a unit, never a float."""

import re
from typing import Final

from schemas.reasons import Reason
from schemas.records import INT64_MAX, MICRO
from streams.decisions.outcomes import Rejected, shown

_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
_INTEGER = re.compile(rb"-?[0-9]+")
_NUMBER = re.compile(rb"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DIGITS_LIMIT: Final = 40
"""Far beyond Int64, far below what makes an integer's conversion slow."""


def quantity_from_text(text: str) -> int | Rejected:
    """A decimal string (`"12.5"`, `"5"`) in millionths; at most 6 decimals are kept exactly."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return Rejected(
            Reason.INVALID_QUANTITY,
            f"data.quantity is {shown(text)}; as a string it must be a plain decimal like '12.5'.",
        )
    sign, whole, decimals = match[1], match[2].lstrip("0"), (match[3] or "").rstrip("0")
    if len(decimals) > 6:
        return Rejected(
            Reason.INVALID_QUANTITY,
            f"data.quantity is {shown(text)}, which has more than 6 decimals.",
        )
    if not whole and not decimals:
        return 0
    if sign:
        return _negative(text)
    if len(whole) > _DIGITS_LIMIT:
        return _too_large(text)
    micro = int(whole or "0") * MICRO + int(decimals.ljust(6, "0"))
    return micro if micro <= INT64_MAX else _too_large(text)


def quantity_from_json(raw: bytes) -> int | Rejected:
    """A quantity from its JSON text, which shows what a parsed number hides (`1.0`, `1e3`)."""
    if not raw:
        return Rejected(Reason.INVALID_QUANTITY, "data.quantity is missing.")
    if _INTEGER.fullmatch(raw):
        if len(raw) > _DIGITS_LIMIT:
            return _negative(raw) if raw[:1] == b"-" else _too_large(raw)
        micro = int(raw) * MICRO
        if micro < 0:
            return _negative(raw)
        return micro if micro <= INT64_MAX else _too_large(raw)
    if _NUMBER.fullmatch(raw):
        return Rejected(
            Reason.FLOAT_QUANTITY,
            f"data.quantity is {shown(raw)}, a floating-point number; send an integer, or a "
            "decimal string like '12.5', because floats are not exact.",
        )
    return Rejected(
        Reason.INVALID_QUANTITY,
        f"data.quantity is {shown(raw)}; it must be an integer or a decimal string.",
    )


def _negative(value: object) -> Rejected:
    return Rejected(
        Reason.NEGATIVE_QUANTITY, f"data.quantity is {shown(value)}; usage cannot be negative."
    )


def _too_large(value: object) -> Rejected:
    return Rejected(
        Reason.QUANTITY_TOO_LARGE,
        f"data.quantity is {shown(value)}; at most {INT64_MAX // MICRO} units fit.",
    )
