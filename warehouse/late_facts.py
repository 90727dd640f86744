"""How many stamps would be others had all facts been known in time: for the sink's gauge."""

from typing import Final

CHECK_INTERVAL_S: Final = 300.0
CHECK_SETTINGS: Final = {"max_execution_time": "60", "max_threads": "1"}
"""Seconds; one thread, since nobody waits for it."""

COUNT_CHANGED_STAMPS: Final = """
SELECT count() FROM stamps_changed_by_late_facts
WHERE event_time >= now64(6) - INTERVAL 35 DAY
"""
