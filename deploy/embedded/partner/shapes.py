"""What the reference partner reads, in its own words; unknown fields are ignored."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Text = Annotated[str, Meta(min_length=1, max_length=256)]
Outcome = Literal["succeeded", "pending", "declined"]


class ChargeRequest(Struct, frozen=True):
    purchase_id: Text
    organization_id: Text
    pool_kind: Literal["group", "website"]
    pool_id: Text
    kind: Literal["one_time", "monthly"]
    package_id: Text
    description: Annotated[str, Meta(max_length=256)]
    packages: Annotated[int, Meta(ge=1, le=50)]
    credits_micro: Annotated[int, Meta(ge=1)]
    amount_minor: Annotated[int, Meta(ge=0)]
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")]


class SubscriptionChange(Struct, frozen=True):
    action: Literal["cancel", "resume"]
    subscription_id: Text
    purchase_id: Text
    organization_id: Text
    at_period_end: bool = True


class Next(Struct, frozen=True, forbid_unknown_fields=True):
    """A switch: what happens to the next charges that are asked for.

    `fault` is what goes wrong around it: `silent_after` charges and then never answers,
    `silent_before` never answers and does nothing, `error_after` charges and answers 500,
    `garbage_after` charges and answers no JSON, `refuse` answers `code` with `status`.
    """

    outcome: Outcome = "succeeded"
    message: str = ""
    fault: Literal[
        "none", "silent_after", "silent_before", "error_after", "garbage_after", "refuse"
    ] = "none"
    status: int = 400
    code: str = "invalid_request"
    times: Annotated[int, Meta(ge=1, le=1000)] = 1


class Refund(Struct, frozen=True, forbid_unknown_fields=True):
    amount_minor: Annotated[int, Meta(ge=1)] | None = None
    """What goes back now; None: everything that is left."""


class Renew(Struct, frozen=True, forbid_unknown_fields=True):
    outcome: Outcome = "succeeded"


class Delivery(Struct, frozen=True, forbid_unknown_fields=True):
    """How webhooks are delivered from now on; `hold` keeps them until `release`."""

    mode: Literal["deliver", "hold", "drop", "duplicate"] = "deliver"
    url: str | None = None


class Release(Struct, frozen=True, forbid_unknown_fields=True):
    order: Literal["as_made", "reversed"] = "as_made"


class Forge(Struct, frozen=True, forbid_unknown_fields=True):
    """A webhook that no event made. `secret` empty: ours; `age_s` negative: from the future."""

    type: str
    data: dict[str, Any]
    secret: str = ""
    age_s: int = 0


class ClockChange(Struct, frozen=True, forbid_unknown_fields=True):
    now: datetime | None = None
    """None: back to the wall clock."""


class Away(Struct, frozen=True, forbid_unknown_fields=True):
    away: bool
