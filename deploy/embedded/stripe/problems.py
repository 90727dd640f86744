"""Errors in Stripe's shape. https://docs.stripe.com/api/errors"""

from typing import Any


class Problem(Exception):
    """A request that Stripe would answer with an error; changes nothing."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        **further: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        named = {"code": code, "message": message, "param": param, "type": kind, **further}
        self.error = {name: value for name, value in named.items() if value is not None}


def missing(kind: str, identifier: str, param: str = "id", *, status: int = 400) -> Problem:
    """No such object: 404 where the path names it, 400 where a parameter does."""
    return Problem(
        f"No such {kind}: '{identifier}'", status=status, code="resource_missing", param=param
    )


def unknown_parameter(param: str) -> Problem:
    return Problem(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)


def missing_parameter(param: str) -> Problem:
    return Problem(f"Missing required param: {param}.", code="parameter_missing", param=param)
