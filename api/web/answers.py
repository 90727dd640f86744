"""How answers look: one shape of errors for `/v1`, Cursor's for `/teams`, SCIM's for `/scim`."""

from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.complaints import complaint
from api.errors import Refused

SCIM_ERROR: Final = "urn:ietf:params:scim:api:messages:2.0:Error"
OUR_PATHS: Final = ("/v1/", "/api/v1/", "/health/", "/webhooks/")
"""Elsewhere errors have Cursor's shape, also on paths of Cursor's that are not here."""
SCIM_TYPE: Final = "application/scim+json"
DEFAULT_SCIM_TYPES: Final = {400: "invalidValue", 409: "uniqueness"}


class ErrorBody(BaseModel):
    """What was wrong, where, and what to do about it."""

    code: str = Field(examples=["group_name_taken"])
    message: str = Field(examples=["There is a group 'Sales' already."])
    where: str = Field(examples=["name"])
    what_to_do: str = Field(examples=["Choose another name."])
    details: dict[str, Any] = Field(default_factory=dict)


class Error(BaseModel):
    """The one shape of every error of `/v1`."""

    error: ErrorBody


class TeamsError(BaseModel):
    """Cursor's shape of errors, with our code, place and advice beside it."""

    error: str = Field(examples=["Bad Request"])
    message: str = Field(examples=["The name is empty."])
    code: str = Field(examples=["invalid"])
    where: str = Field(examples=["name"])
    what_to_do: str = Field(examples=["Correct the field and send again."])
    details: dict[str, Any] = Field(default_factory=dict)


def responses(model: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the OpenAPI document; every route also has these four."""
    return {
        status: {"model": model, "description": HTTPStatus(status).phrase}
        for status in sorted({400, 401, 403, 429, 503, *statuses})
    }


class Json(Response):
    """JSON made by msgspec: quick enough for tables of 20,000 members."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def error_response(refused: Refused, path: str) -> Response:
    """The error as this part of the API shows errors."""
    error = {
        "code": refused.code,
        "message": _sendable(refused.message),
        "where": _sendable(refused.where),
        "what_to_do": _sendable(refused.what_to_do),
        "details": refused.details,
    }
    if path.startswith("/scim/"):
        return _scim_error(refused)
    if path.startswith(OUR_PATHS):
        body: dict[str, Any] = {"error": error}
    else:
        body = {**error, "error": HTTPStatus(refused.status).phrase}
    return Json(body, refused.status, headers=refused.headers)


def _sendable(text: str) -> str:
    """Errors repeat what was sent, which may hold half of a surrogate pair; UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _scim_error(refused: Refused) -> Response:
    body = {
        "schemas": [SCIM_ERROR],
        "status": str(refused.status),
        "detail": _sendable(f"{refused.message} {refused.what_to_do}".strip()),
    }
    scim_type = refused.details.get("scimType") or DEFAULT_SCIM_TYPES.get(refused.status)
    if scim_type:
        body["scimType"] = scim_type
    return Response(
        msgspec.json.encode(body),
        refused.status,
        headers=refused.headers,
        media_type=SCIM_TYPE,
    )


def add_error_handlers(app: FastAPI) -> None:
    """Every error leaves in its shape; none shows what is inside."""

    def on_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return error_response(error, request.url.path)

    def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message, what_to_do = complaint(first), "Compare the request with the OpenAPI document."
        if first["type"] == "json_invalid":
            where, character = "body", first["loc"][-1]
            message = f"is not JSON from its character {character} on"
        elif where == "body" and isinstance(first.get("input"), bytes):
            # Nothing was parsed: it came as something else than JSON, as forms do.
            message = "is not sent as JSON"
            what_to_do = "Send JSON, with the header `Content-Type: application/json`."
        refused = Refused(400, "invalid", f"{where} {message}.", where, what_to_do)
        return error_response(refused, request.url.path)

    def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        try:
            _count(request)
        except Refused as too_fast:
            return error_response(too_fast, request.url.path)
        phrase = HTTPStatus(error.status_code).phrase
        refused = Refused(
            error.status_code,
            phrase.lower().replace(" ", "_"),
            f"{request.method} {request.url.path}: {phrase}.",
            "path",
            "See the OpenAPI document for what there is.",
            headers=dict(error.headers or {}),
        )
        return error_response(refused, request.url.path)

    def _count(request: Request) -> None:
        """What has no route was counted by none; raises Refused (429)."""
        caller = getattr(request.state, "caller", None)
        if caller is not None and not getattr(request.state, "counted", False):
            app.state.api.limits.take("api", caller.counted_as)

    def on_bug(request: Request, error: Exception) -> Response:
        refused = Refused(
            500, "internal_error", "Something went wrong here, and is logged.", "", "Try again."
        )
        return error_response(refused, request.url.path)

    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_bug)
