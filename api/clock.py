"""The time is an argument: whoever needs to know it is given a clock."""

from collections.abc import Callable
from datetime import datetime

Clock = Callable[[], datetime]
"""Returns an aware time."""
