"""What every fact must satisfy whatever it says: ids, times and amounts within their limits."""

from datetime import UTC, datetime
from typing import Final

from msgspec import structs

from schemas.bounds import LISTED_ID_BYTES_MAX
from schemas.codec import encode
from schemas.reasons import Reason
from schemas.records import (
    ID_LIMIT_CHARACTERS,
    INT64_MAX,
    CreditRecord,
    Granted,
    MembershipRecord,
)
from streams.decisions.outcomes import Rejected, shown

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""What every table and index of ours can hold, with room."""
LISTED_IDS: Final = frozenset({"member_id", "group_id", "grant_id"})
"""Ids of which one state value, or one event's allocations, may hold thousands."""


def check_fact(record: MembershipRecord | CreditRecord) -> Rejected | None:
    """The first thing wrong with a fact by itself."""
    times = {"recorded_at": record.recorded_at, "effective_at": record.effective_at}
    fact = record.fact
    if isinstance(fact, Granted) and fact.expires_at is not None:
        times["expires_at"] = fact.expires_at
    for name, at in times.items():
        if not EARLIEST <= at < LATEST:
            return invalid(f"{name} is {at.isoformat()}; it must be from 1970 to 2199.")
    for name, value in structs.asdict(fact).items():
        if isinstance(value, str):
            wrong = _check_text(name, value)
            if wrong is not None:
                return wrong
            if name in LISTED_IDS and len(encode(value)) - len('""') > LISTED_ID_BYTES_MAX:
                return invalid(
                    f"{name} is {shown(value)}; as JSON it has more than {LISTED_ID_BYTES_MAX} "
                    "bytes, since it is not all plain ASCII."
                )
    return None


def _check_text(name: str, value: str) -> Rejected | None:
    shortest = 0 if name == "why" else 1
    if shortest <= len(value) <= ID_LIMIT_CHARACTERS and "\0" not in value:
        return None
    return invalid(
        f"{name} is {shown(value)}; it must have {shortest} to {ID_LIMIT_CHARACTERS} characters, "
        "none of them NUL."
    )


def check_amount(amount_micro: int) -> Rejected | None:
    """An amount's size must fit Int64."""
    if abs(amount_micro) <= INT64_MAX:
        return None
    return Rejected(
        Reason.AMOUNT_TOO_LARGE,
        f"amount_micro is {shown(amount_micro)}; at most {INT64_MAX} fit.",
    )


def invalid(detail: str) -> Rejected:
    return Rejected(Reason.INVALID_FACT, detail)
