"""`/webhooks/partners/{partner}`: hints from partners, kept and answered before anything is done.

There is no key here: the signature over the raw bytes is what lets a body in, and nothing is parsed
before it is right. An unknown partner is answered as a wrong signature is. `deploy/partner.md` is
the contract.
"""

from datetime import UTC
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.errors import Refused, invalid
from api.payments.inbox import Hint
from api.payments.partners import metrics as partner_metrics
from api.payments.partners.file import Partner
from api.payments.partners.provider import PURCHASE
from api.payments.partners.signing import BadSignature, verify
from api.web.admission import keyless_body
from api.web.answers import Error, Json, responses
from api.web.context import Api, ApiPart
from schemas import partners as contract

router = APIRouter(prefix="/webhooks/partners", tags=["Webhooks"])

BODY_LIMIT_BYTES: Final = 256 * 1024
NAME_CHARACTERS_MAX: Final = 32
HEADERS: Final = {
    "webhook-id": "msg_5d41402abc4b2a76",
    "webhook-timestamp": "1795269600",
    "webhook-signature": "v1,dRv2K2i6Dm38vWz2ZKC3r9hhkfxzB8FoUcTTZn+f5zY=",
}


@router.post(
    "/{partner}",
    summary="What a partner tells of payments; signed by it, without a key",
    response_model=dict[str, bool],
    responses={**responses(Error, 408, 413), 200: {"description": "Kept, or known already."}},
    openapi_extra={
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": "As Standard Webhooks says.",
                "schema": {"type": "string", "maxLength": 1024},
                "example": example,
            }
            for name, example in HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/PartnerWebhook"}}
            },
        },
    },
)
async def post_partner(
    request: Request,
    api: ApiPart,
    partner: Annotated[
        str,
        Path(
            max_length=NAME_CHARACTERS_MAX,
            description="The partner, as METERING_PARTNERS_FILE names it.",
            examples=["acme"],
        ),
    ],
) -> Response:
    """A webhook is only a hint to look: it is verified and stored, and then the partner is asked
    what is true of the purchase that it names. The same `webhook-id` again changes nothing.
    """
    return await _receive(request, api, api.desk.partners.by_name.get(partner))


async def _receive(request: Request, api: Api, partner: Partner | None) -> Response:
    body = await keyless_body(request, api.webhook_readers, BODY_LIMIT_BYTES)
    secrets = [one.get_secret_value() for one in partner.webhook_secrets] if partner else []
    try:
        webhook_id = verify(body, request.headers.raw, secrets)
    except BadSignature as error:
        _count(partner, "forged")
        address = request.client.host if request.client else "unknown"
        # Refused itself (429) when there are too many; a right one is taken even then.
        api.limits.take("failed_logins", address)
        raise Refused(
            401,
            "bad_signature",
            str(error),
            "webhook-signature",
            "Sign the exact bytes that are sent, with the webhook secret, now.",
        ) from error
    assert partner is not None, "nothing is verified without a secret"
    try:
        hint = hint_of(partner.provider, webhook_id, body)
    except Refused:
        _count(partner, "invalid")
        raise
    is_new = await api.desk.inbox.keep(hint)
    _count(partner, "stored" if is_new else "repeated")
    return Json(contract.Received())


def _count(partner: Partner | None, outcome: str) -> None:
    partner_metrics.WEBHOOKS.labels(partner.name if partner else "unknown", outcome).inc()


def hint_of(provider: str, webhook_id: str, body: bytes) -> Hint:
    """What is kept of a signed webhook. Raises Refused (400) where it does not fit the contract;
    a type that is not known here is kept, too, and does nothing."""
    try:
        envelope = msgspec.json.decode(body, type=contract.Envelope)
        if envelope.type not in contract.WEBHOOK_TYPES:
            return Hint(
                provider, webhook_id, _plain(envelope.type), "", "", body, envelope.timestamp
            )
        told = msgspec.json.decode(body, type=contract.Webhook)
        at = told.timestamp.astimezone(UTC)
    except (msgspec.DecodeError, RecursionError, OverflowError) as error:
        raise _unfit(str(error)) from error
    about = told.data
    for text in (about.purchase_id, about.organization_id):
        _plain(text)
    return Hint(provider, webhook_id, envelope.type, PURCHASE, about.purchase_id, body, at)


def _plain(text: str) -> str:
    """What a database can keep and a log can show."""
    if not text.isprintable():
        raise _unfit("an id has characters that cannot be printed")
    return text


def _unfit(why: str) -> Refused:
    return invalid(
        f"The webhook does not fit the contract: {why[:200]}.",
        "body",
        "Compare it with schemas/json_schema/partners/webhook.schema.json.",
        "invalid_request",
    )
