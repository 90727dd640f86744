"""Decides where reading a partition begins, and raises where records were deleted unread. Pure."""

from sinks.errors import PositionLostError


def first_position(
    partition: str, committed: int | None, log_start: int, log_end: int, from_earliest: bool
) -> tuple[int, int]:
    """The position to read from, and how many records are skipped by that for certain.

    `committed` is the next position of the group, None where it has none (a new group, or one that
    was away for longer than the brokers keep offsets). Raises `PositionLostError` where rows may be
    missing, unless `from_earliest` accepts that.
    """
    if committed is None:
        if log_start == 0 or from_earliest:
            return log_start, 0
        raise PositionLostError(
            f"{partition}: the group has no position and the log starts at {log_start}, not at 0: "
            f"records may have been deleted before the sink read them. {_REMEDY}"
        )
    if committed < log_start:
        if from_earliest:
            return log_start, log_start - committed
        raise PositionLostError(
            f"{partition}: the next record is {committed} but the log starts at {log_start}: "
            f"{log_start - committed} records were deleted before the sink read them. {_REMEDY}"
        )
    if committed > log_end:
        if from_earliest:
            return log_start, 0
        raise PositionLostError(
            f"{partition}: the next record is {committed} but the log ends at {log_end}: the topic "
            f"was made anew or lost its end. {_REMEDY}"
        )
    return committed, 0


_REMEDY = (
    "Run the sink once with --from-earliest to go on with what is left (rows sent twice count once)"
)
