"""What errors of Stripe's library mean: whose fault they are, in words that hold no secret."""

import re
from typing import Final

import stripe
from stripe import StripeError

from api.errors import Refused, unavailable

RETRY_S: Final = 10
SAID_CHARACTERS_MAX: Final = 300
SECRET: Final = re.compile(r"\b(?:[sr]k|pk|whsec)_[A-Za-z0-9+/=_*-]+")


def refused(error: StripeError) -> Refused:
    """A library's error as ours: whose fault it is, in words without secrets."""
    said = redacted(str(error.user_message or error))
    match error:
        case stripe.AuthenticationError() | stripe.PermissionError():
            return Refused(
                502,
                "stripe_refused",
                "Stripe does not accept our key for this.",
                what_to_do="The operator checks METERING_STRIPE_API_KEY: `metering doctor`.",
            )
        case stripe.RateLimitError():
            return unavailable("stripe_unavailable", "Stripe has too many requests.", RETRY_S)
        case stripe.IdempotencyError():
            return Refused(502, "stripe_refused", f"Stripe refuses the repeated request: {said}")
        case stripe.InvalidRequestError() | stripe.CardError():
            return Refused(502, "stripe_refused", f"Stripe refuses this: {said}")
        case _:
            return unavailable("stripe_unavailable", "Stripe does not answer.", RETRY_S)


def redacted(text: str) -> str:
    """On one line, without keys, and not longer than a message may be."""
    return SECRET.sub("********", " ".join(text.split()))[:SAID_CHARACTERS_MAX]


def outcome_of(error: StripeError) -> str:
    """The word of the metric."""
    match error:
        case stripe.APIConnectionError():
            return "unreachable"
        case stripe.RateLimitError():
            return "rate_limited"
        case stripe.InvalidRequestError() if error.code == "resource_missing":
            return "missing"
        case stripe.InvalidRequestError() | stripe.IdempotencyError() | stripe.CardError():
            return "refused"
        case stripe.AuthenticationError() | stripe.PermissionError():
            return "unauthorized"
        case _:
            return "failed"


def is_missing(error: Refused) -> bool:
    """Whether Stripe does not have what was asked for."""
    cause = error.__cause__
    return isinstance(cause, stripe.InvalidRequestError) and cause.code == "resource_missing"


def is_about_customer(error: Refused) -> bool:
    """Whether the customer of the request is not there any more."""
    cause = error.__cause__
    return is_missing(error) and getattr(cause, "param", None) == "customer"


def is_repeated_otherwise(error: Refused) -> bool:
    """Whether the idempotency key was used with other parameters."""
    return isinstance(error.__cause__, stripe.IdempotencyError)


def is_request_error(error: Refused) -> bool:
    """Whether Stripe understood it and says no."""
    return isinstance(error.__cause__, stripe.InvalidRequestError)


def is_failure_of_theirs(error: Refused) -> bool:
    """Whether Stripe failed (5xx), which it repeats for a day to whoever uses the key again."""
    return isinstance(error.__cause__, stripe.APIError)
