"""Why a record was refused: one enum, the same words in headers, metrics, API and documents.

The order is the precedence: the first that holds is the reason given.
"""

from enum import StrEnum


class Reason(StrEnum):
    """A word of the contract; `REPLAYABLE` tells which a later replay may bring back."""

    # The bytes.
    TOO_LARGE = "too_large"
    EMPTY_VALUE = "empty_value"
    NOT_JSON = "not_json"
    # The event.
    INVALID_EVENT = "invalid_event"
    ID_TOO_LONG = "id_too_long"
    TOO_MANY_DIMENSIONS = "too_many_dimensions"
    FLOAT_QUANTITY = "float_quantity"
    INVALID_QUANTITY = "invalid_quantity"
    NEGATIVE_QUANTITY = "negative_quantity"
    QUANTITY_TOO_LARGE = "quantity_too_large"
    INVALID_TIME = "invalid_time"
    WRONG_KEY = "wrong_key"
    WRONG_PARTITION = "wrong_partition"
    TOO_OLD = "too_old"
    TOO_FAR_AHEAD = "too_far_ahead"
    # The event against what is known.
    UNKNOWN_ORGANIZATION = "unknown_organization"
    CONFLICT = "conflict"
    NO_PRICE = "no_price"
    COST_TOO_LARGE = "cost_too_large"
    # Facts.
    INVALID_FACT = "invalid_fact"
    VERSION_CONFLICT = "version_conflict"
    VERSION_GAP = "version_gap"
    FACTS_STOPPED = "facts_stopped"
    ORGANIZATION_EXISTS = "organization_exists"
    RESERVED_GROUP = "reserved_group"
    GROUP_EXISTS = "group_exists"
    UNKNOWN_GROUP = "unknown_group"
    GROUP_DELETED = "group_deleted"
    UNKNOWN_MEMBER = "unknown_member"
    ALIAS_TAKEN = "alias_taken"
    UNKNOWN_WEBSITE = "unknown_website"
    GRANT_EXISTS = "grant_exists"
    UNKNOWN_GRANT = "unknown_grant"
    AMOUNT_TOO_LARGE = "amount_too_large"
    TOO_MANY_GRANTS = "too_many_grants"
    TOO_MANY_CHANGES = "too_many_changes"
    # A bug of ours.
    INTERNAL_ERROR = "internal_error"


REPLAYABLE = frozenset(
    {
        Reason.UNKNOWN_ORGANIZATION,
        Reason.NO_PRICE,
        Reason.WRONG_PARTITION,
        Reason.COST_TOO_LARGE,
        Reason.INTERNAL_ERROR,
    }
)
"""Usage reasons that may no longer hold later. Facts are never replayed, only published again."""
