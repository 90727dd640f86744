"""How single values look everywhere."""

from datetime import datetime


def iso(moment: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds and `Z`, as Cursor writes it."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
