"""Whether this process lives and is ready, and what it measures."""

from contextlib import suppress

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from starlette.responses import Response

from api.errors import Refused
from api.outbox.metrics import observe
from api.web.answers import Error, Json, responses
from api.web.context import Api, ApiPart
from schemas.release import code_digest

router = APIRouter(tags=["Operation"])


# Threads of their own: however many requests are at work, whoever watches is answered.
_threads = CapacityLimiter(2)


@router.get("/health/live", summary="This process answers", response_model=dict[str, str])
async def health() -> Response:
    return Json({"status": "ok", "release": code_digest()})


@router.get(
    "/health/ready",
    summary="The database answers too",
    response_model=dict[str, str],
    responses={503: responses(Error)[503]},
)
async def ready(api: ApiPart) -> Response:
    await anyio.to_thread.run_sync(_ask_database, api, limiter=_threads)
    return Json({"status": "ready"})


def _ask_database(api: Api) -> None:
    with api.store.read() as session:
        session.execute(text("SELECT 1"))


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(api: ApiPart) -> Response:
    return await anyio.to_thread.run_sync(_metrics, api, limiter=_threads)


def _metrics(api: Api) -> Response:
    # A database that is away is told by /health/ready; its gauges keep their last value.
    with suppress(Refused), api.store.read() as session:
        observe(session, api.control.clock())
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
