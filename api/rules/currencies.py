"""Currencies of packages: ISO 4217's codes, and how many decimals an amount of money has.

The minor unit is Stripe's (docs.stripe.com/currencies), since that is what amounts are sent in;
partners are told the same. It is ISO 4217's but for the few that the tables below name.
"""

import re
from typing import Final

from api.errors import invalid

AMOUNT: Final = re.compile(r"(\d{1,19})(?:\.(\d{1,18}))?")
_CODES: Final = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BWP BYN
BZD CAD CDF CHF CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GHS GIP
GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR ISK JMD JOD JPY KES KGS KHR KMF KRW KWD KYD KZT
LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR
NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SEK SGD SHP SLE SOS SRD
STN SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VND VUV WST XAF XCD XCG XOF XPF
YER ZAR ZMW
"""
CODES: Final = frozenset(_CODES.split())
"""What can be sold in: Stripe's presentment currencies, each a code of ISO 4217."""
_WITHOUT_DECIMALS: Final = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
WITHOUT_DECIMALS: Final = frozenset(_WITHOUT_DECIMALS.split())
WITH_THREE_DECIMALS: Final = frozenset(("BHD", "JOD", "KWD", "OMR", "TND"))
MULTIPLES: Final = dict.fromkeys(("ISK", "UGX"), 100) | dict.fromkeys(WITH_THREE_DECIMALS, 10)
"""Whole kronur and shillings only, though both are sent with two decimals; and of three decimals
the last must be 0 (docs.stripe.com/currencies, special cases and three-decimal currencies)."""


def check_currency(currency: str, where: str = "currency") -> None:
    """Raises Refused (400) where nothing can be sold in this currency."""
    if currency not in CODES:
        raise invalid(
            f"{currency!r} is no currency that can be sold in.",
            where,
            "Use the three capital letters of ISO 4217, such as USD or EUR.",
        )


def check_price(price_minor: int, currency: str, where: str = "price_minor") -> None:
    """Raises Refused (400) where nobody can be charged such an amount of a known currency."""
    multiple = MULTIPLES.get(currency, 1)
    if price_minor % multiple:
        raise invalid(
            f"Prices in {currency} are multiples of {multiple} of its minor unit.",
            where,
            f"Take {price_minor - price_minor % multiple + multiple}, for example.",
        )


def decimals(currency: str) -> int:
    """How many digits of an amount in minor units stand behind the point."""
    if currency in WITHOUT_DECIMALS:
        return 0
    return 3 if currency in WITH_THREE_DECIMALS else 2


def money_text(amount_minor: int, currency: str) -> str:
    """An amount as people write it: `12.34 USD`, `1234 JPY`, `1.230 KWD`."""
    places = decimals(currency)
    if not places:
        return f"{amount_minor} {currency}"
    sign = "-" if amount_minor < 0 else ""
    whole, fraction = divmod(abs(amount_minor), 10**places)
    return f"{sign}{whole}.{fraction:0{places}d} {currency}"


def minor_of(text: str, currency: str, where: str = "price") -> int:
    """An amount that a person wrote, as `12.34`, in minor units. Raises Refused (400) where it is
    none, or has more decimals than the currency."""
    check_currency(currency)
    return whole_units(text, decimals(currency), where)


def whole_units(text: str, places: int, where: str) -> int:
    """A decimal number in units of 10^-`places`, exactly. Raises Refused (400)."""
    written = AMOUNT.fullmatch(text.strip())
    if written is None:
        raise invalid(f"{text!r} is no amount.", where, "Write it as 1000 or 12.34.")
    whole, fraction = written[1], (written[2] or "").rstrip("0")
    if len(fraction) > places:
        raise invalid(f"{text!r} has more than {places} decimals.", where)
    return int(whole + fraction.ljust(places, "0"))
