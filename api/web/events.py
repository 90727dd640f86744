"""`POST /v1/events`: CloudEvents 1.0, structured, binary or as a batch."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from api.errors import Refused, invalid
from api.ingest import BATCH_EVENTS_MAX, Sent, batch_events, binary_event
from api.web.admission import KeyedRoute
from api.web.answers import Error, Json, responses
from api.web.context import INGESTERS, Allow, ApiPart, Caller

router = APIRouter(prefix="/v1", tags=["Ingestion"], route_class=KeyedRoute)

Ingester = Annotated[Caller, Depends(Allow(INGESTERS, "ingest"))]

STRUCTURED: Final = "application/cloudevents+json"
STRUCTURED_PREFIX: Final = "application/cloudevents"
BATCH: Final = "application/cloudevents-batch+json"
EXAMPLE: Final = {
    "specversion": "1.0",
    "id": "evt_8f1c",
    "source": "editor/eu-1",
    "type": "ai.tokens",
    "time": "2026-11-01T12:00:00.123Z",
    "subject": "user_42",
    "organizationid": "org_7",
    "data": {"quantity": 1830, "website_id": "web_3", "dimensions": {"model": "large"}},
}
EVENT: Final = {"$ref": "#/components/schemas/CloudEvent"}
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            STRUCTURED: {"schema": EVENT, "example": EXAMPLE},
            BATCH: {
                "schema": {"type": "array", "items": EVENT},
                "example": [EXAMPLE],
            },
            "application/json": {
                "schema": {"$ref": "#/components/schemas/EventData"},
                "example": EXAMPLE["data"],
            },
        },
    }
}


class RefusedEvent(BaseModel):
    index: int = Field(description="The event's place in the batch, from 0.")
    reason: str = Field(examples=["float_quantity"])
    detail: str = Field(examples=["quantity is 1.5; floats are not accepted."])


class Taken(BaseModel):
    """What the broker has acknowledged, and what was refused and why."""

    accepted: int = Field(examples=[1])
    refused: list[RefusedEvent]


@router.post(
    "/events",
    response_model=Taken,
    responses=responses(Error, 413)
    | {207: {"model": Taken, "description": "Some events were refused."}},
    openapi_extra=BODY,
    summary="Send usage; answered when the broker has it",
)
async def post_events(api: ApiPart, caller: Ingester, request: Request) -> Response:
    """200: all taken (an empty batch too). 207: some refused. 400: all refused. 503: send all of
    it again."""
    events = _read(dict(request.headers), await request.body())
    outcome = await api.ingest.take(events, caller.organization_id, api.control.clock())
    refused = [
        {"index": one.index, "reason": one.reason, "detail": one.detail} for one in outcome.refused
    ]
    if refused and not outcome.accepted:
        first = outcome.refused[0]
        raise Refused(
            400,
            first.reason,
            first.detail,
            f"event {first.index}",
            "Correct the events and send them again.",
            details={"accepted": 0, "refused": refused},
        )
    return Json({"accepted": outcome.accepted, "refused": refused}, 207 if refused else 200)


def _read(headers: dict[str, str], body: bytes) -> list[Sent]:
    """The events of a request. Raises Refused (400) where their number or form cannot be."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == BATCH:
        try:
            events = batch_events(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise invalid(
                "The batch cannot be read as a JSON array of events.",
                "body",
                f"Correct it ({str(error)[:200]}) and send it again.",
                code="not_json",
            ) from error
        if len(events) > BATCH_EVENTS_MAX:
            raise invalid(f"A batch has at most {BATCH_EVENTS_MAX} events.", "body")
        return events
    if any(name.startswith("ce-") for name in headers) and not kind.startswith(STRUCTURED_PREFIX):
        return [binary_event(headers, body)]
    return [Sent(body)]
