"""`/webhooks/stripe`: hints from outside, kept and answered before anything is done.

There is no key here: the signature over the raw bytes is what lets a body in, and nothing is parsed
before it is right. Stripe tells the same event again until it is answered 2xx, for up to three
days, so what cannot be kept now is refused (503) and comes again.
https://docs.stripe.com/webhooks, https://docs.stripe.com/webhooks/signature
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response
from stripe import SignatureVerificationError, WebhookSignature

from api.errors import Refused, invalid, unavailable
from api.options import PaymentOptions
from api.payments import metrics
from api.payments.inbox import Hint
from api.storage.purchases import STRIPE
from api.web.admission import keyless_body
from api.web.answers import Error, Json, responses
from api.web.context import Api, ApiPart

router = APIRouter(prefix="/webhooks", tags=["Webhooks"])

BODY_LIMIT_BYTES: Final = 256 * 1024
SIGNATURE: Final = "Stripe-Signature"
SIGNATURE_CHARACTERS_MAX: Final = 2_048
OBJECT_CHARACTERS_MAX: Final = 64
TYPE_CHARACTERS_MAX: Final = 128
UNIX_S_MAX: Final = 253_402_300_799
"""The last second of the year 9999."""


class _Data(msgspec.Struct):
    object: dict[str, Any]


class _Event(msgspec.Struct):
    """What is read of an event; https://docs.stripe.com/api/events/object."""

    id: str
    object: str
    type: str
    created: int
    livemode: bool
    data: _Data
    account: str | None = None


@router.post(
    "/stripe",
    summary="What Stripe tells of payments; signed by it, without a key",
    response_model=dict[str, bool],
    responses={**responses(Error, 408, 413), 200: {"description": "Kept, or known already."}},
    openapi_extra={
        "parameters": [
            {
                "name": SIGNATURE,
                "in": "header",
                "required": True,
                "description": "Stripe's signature of the raw body.",
                "schema": {"type": "string", "maxLength": SIGNATURE_CHARACTERS_MAX},
                "example": "t=1795271000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/StripeEvent"}}
            },
        },
    },
)
async def post_stripe(request: Request, api: ApiPart) -> Response:
    """A webhook is only a hint to look: it is verified and stored, and then Stripe is asked what is
    true of the object that it names. The same event again is answered 200 and changes nothing.
    """
    try:
        return await _receive(request, api)
    except Refused as refused:
        metrics.RECEIVED.labels(refused.code).inc()
        raise


async def _receive(request: Request, api: Api) -> Response:
    options = api.desk.options
    if not options.is_on:
        raise unavailable("payments_not_configured", "Stripe is not set up here.", 3600)
    body = await keyless_body(request, api.webhook_readers, BODY_LIMIT_BYTES)
    now = api.control.clock()
    try:
        verify(body, request.headers.get(SIGNATURE, ""), options, now)
    except Refused:
        address = request.client.host if request.client else "unknown"
        # Refused itself (429) when there are too many; a right one is taken even then.
        api.limits.take("failed_logins", address)
        raise
    hint = hint_of(body, options)
    is_new = await api.desk.inbox.keep(hint)
    metrics.RECEIVED.labels("stored" if is_new else "known").inc()
    return Json({"received": True})


def verify(body: bytes, header: str, options: PaymentOptions, now: datetime) -> None:
    """Raises Refused (400) unless one of the secrets signed these bytes, not long ago, and not in
    a time to come: the library would take a signature of any future time."""
    try:
        signed_at_s = _timestamp(header)
        for secret in options.webhook_secrets:
            try:
                WebhookSignature.verify_header(body, header, secret)
            except SignatureVerificationError:
                continue
            break
        else:
            raise _wrong_signature()
    except ValueError as error:
        raise _wrong_signature() from error
    tolerance = timedelta(seconds=options.webhook_tolerance_s)
    if abs(now - datetime.fromtimestamp(signed_at_s, UTC)) > tolerance:
        raise invalid(
            f"The signature is not of the last {options.webhook_tolerance_s} seconds.",
            SIGNATURE,
            "Send it signed anew; compare the clocks of both machines.",
            "stale_signature",
        )


def _timestamp(header: str) -> int:
    """The one that the library signs with: the first. Raises ValueError where there is none."""
    if len(header) > SIGNATURE_CHARACTERS_MAX or not header.isascii():
        raise ValueError("no signature")
    for item in header.split(","):
        name, _, value = item.partition("=")
        if name == "t":
            if not (value.isascii() and value.isdigit()) or int(value) > UNIX_S_MAX:
                raise ValueError("no time")
            return int(value)
    raise ValueError("no time")


def _wrong_signature() -> Refused:
    return invalid(
        "The signature is not Stripe's, or of another endpoint.",
        SIGNATURE,
        "The operator compares METERING_STRIPE_WEBHOOK_SECRET with the endpoint's signing secret.",
        "wrong_signature",
    )


def hint_of(body: bytes, options: PaymentOptions) -> Hint:
    """What is kept of a signed event. Raises Refused (400) for what cannot be ours."""
    try:
        event = msgspec.json.decode(body, type=_Event)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid("This is no event of Stripe's API v1.", "body", code="no_event") from error
    if event.object != "event" or not 0 <= event.created <= UNIX_S_MAX:
        raise invalid("This is no event of Stripe's API v1.", "body.object", code="no_event")
    if event.account is not None:
        raise invalid(
            "The event is of a connected account, with which nothing is sold here.",
            "body.account",
            "Make the endpoint listen to events of your account alone.",
            "other_account",
        )
    if event.livemode != options.is_live:
        ours, theirs = ("live", "test") if options.is_live else ("test", "live")
        raise invalid(
            f"The event is of {theirs} mode, and the key is of {ours} mode.",
            "body.livemode",
            f"Make the endpoint in {ours} mode.",
            "other_mode",
        )
    thing = event.data.object
    kind, object_id = thing.get("object"), thing.get("id")
    return Hint(
        STRIPE,
        _short(event.id, 255),
        _short(event.type, TYPE_CHARACTERS_MAX),
        _short(kind, OBJECT_CHARACTERS_MAX) if kind is not None else "",
        _short(object_id, 255) if object_id is not None else "",
        body,
        datetime.fromtimestamp(event.created, UTC),
    )


def _short(text: Any, limit_characters: int) -> str:
    if not isinstance(text, str) or len(text) > limit_characters or "\0" in text:
        raise invalid("This is no event of Stripe's API v1.", "body", code="no_event")
    return text
