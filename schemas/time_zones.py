"""Which time zones an organization may have: the names of the IANA database that everybody knows.

A machine's own directory holds more: `right/…` counts leap seconds and is 27 seconds away from
every other clock, `posix/…` is a copy, `localtime` is whatever the machine has. ClickHouse knows
none of them.
"""

from functools import cache
from typing import Final
from zoneinfo import available_timezones

NO_PLACES: Final = frozenset({"localtime", "Factory"})


@cache
def _names() -> frozenset[str]:
    # Reading the directory takes a fifth of a second, so it happens once and when it is needed.
    return frozenset(available_timezones()) - NO_PLACES


def is_time_zone(name: str) -> bool:
    """Whether this is the name of a time zone, as `Europe/Berlin`, written exactly so."""
    return name in _names()
