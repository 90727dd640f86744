"""Whether this process lives and is ready, and what it measures."""

from contextlib import suppress

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from starlette.responses import Response

from api.errors import Refused
from api.outbox.metrics import observe
from api.web.answers import Error, Json, responses
from api.web.context import ApiPart

router = APIRouter(tags=["Operation"])


@router.get("/health/live", summary="This process answers", response_model=dict[str, str])
def health() -> Response:
    return Json({"status": "ok"})


@router.get(
    "/health/ready",
    summary="The database answers too",
    response_model=dict[str, str],
    responses={503: responses(Error)[503]},
)
def ready(api: ApiPart) -> Response:
    with api.store.read() as session:
        session.execute(text("SELECT 1"))
    return Json({"status": "ready"})


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(api: ApiPart) -> Response:
    # A database that is away is told by /health/ready; its gauges keep their last value.
    with suppress(Refused), api.store.read() as session:
        observe(session, api.control.clock())
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
