"""Limits of rate. A process counts for itself; counters are bounded in number."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import ceil
from threading import Lock
from typing import Final

from api.errors import Refused

COUNTERS_MAX: Final = 100_000
WINDOW_S: Final = 60.0


class RateLimits:
    """Requests a minute, per kind of request and whoever counts for it; safe among threads.

    A bucket of one minute's worth that refills steadily: a full burst is allowed, then the rate.
    """

    def __init__(self, per_minute: Mapping[str, int], monotonic: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def take(self, kind: str, who: str) -> None:
        """Counts one request. Raises Refused (429, with Retry-After) where there were too many."""
        limit = self._per_minute[kind]
        now = self._monotonic()
        with self._lock:
            left, at = self._buckets.pop((kind, who), (float(limit), now))
            left = min(float(limit), left + (now - at) * limit / WINDOW_S)
            allowed = left >= 1.0
            self._buckets[kind, who] = (left - 1.0 if allowed else left, now)
            if len(self._buckets) > COUNTERS_MAX:
                self._buckets.popitem(last=False)
        if not allowed:
            wait_s = max(1, ceil((1.0 - left) * WINDOW_S / limit))
            raise Refused(
                429,
                "rate_limited",
                f"More than {limit} requests a minute.",
                what_to_do=f"Wait {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )
