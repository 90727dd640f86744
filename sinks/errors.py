"""Errors of the sink: those that end its process, and those that it waits out."""


class SinkError(Exception):
    """The sink cannot go on; the text says why and what to do."""


class PositionLostError(SinkError):
    """The next record to read is no longer in Kafka: rows would be missing without a trace."""


class RefusedError(Exception):
    """ClickHouse refused rows for what they contain: sending them again would not help."""


class UnavailableError(Exception):
    """ClickHouse did not take the rows for a reason that may pass, or that an operator mends."""
