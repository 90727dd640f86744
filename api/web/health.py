"""Whether this process lives and is ready, and what it measures."""

from contextlib import suppress
from typing import Final

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from starlette.responses import Response

from api.errors import Refused, unavailable
from api.outbox import metrics as outbox_metrics
from api.payments import metrics as payment_metrics
from api.payments.partners import metrics as partner_metrics
from api.web.answers import Error, Json, responses
from api.web.context import Api, ApiPart
from schemas.release import code_digest

router = APIRouter(tags=["Operation"])


OK: Final = "ok"
RETRY_S: Final = 5

# Health checks have threads of their own, so that they are answered however many requests run.
_threads = CapacityLimiter(2)


@router.get("/health/live", summary="This process answers", response_model=dict[str, str])
async def health() -> Response:
    return Json({"status": "ok", "release": code_digest()})


@router.get(
    "/health/ready",
    summary="Everything works: the control plane, and taking events",
    response_model=dict[str, str],
    responses={503: responses(Error)[503]},
)
async def ready(api: ApiPart) -> Response:
    return _readiness({"control_plane": await _control_plane(api), "events": await _events(api)})


@router.get(
    "/health/ready/control-plane",
    summary="The database answers; Kafka may be away, and changes reach it later",
    response_model=dict[str, str],
    responses={503: responses(Error)[503]},
)
async def control_plane_ready(api: ApiPart) -> Response:
    return _readiness({"control_plane": await _control_plane(api)})


@router.get(
    "/health/ready/events",
    summary="Events can be delivered to Kafka now",
    response_model=dict[str, str],
    responses={503: responses(Error)[503]},
)
async def events_ready(api: ApiPart) -> Response:
    return _readiness({"events": await _events(api)})


def _readiness(parts: dict[str, str]) -> Response:
    """What each part says, `ok` or why it does not work. Raises Refused unless all do."""
    broken = [f"{name}: {state}" for name, state in parts.items() if state != OK]
    if broken:
        problem = unavailable("not_ready", f"Not ready: {'; '.join(broken)}.", RETRY_S)
        problem.details.update(parts)
        raise problem
    return Json({"status": "ready", **parts})


async def _control_plane(api: Api) -> str:
    def ask() -> None:
        with api.store.read() as session:
            session.execute(text("SELECT 1"))

    try:
        await anyio.to_thread.run_sync(ask, limiter=_threads)
    except Refused as refused:
        return refused.message.rstrip(".")
    return OK


async def _events(api: Api) -> str:
    return await api.ingest.problem() or OK


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(api: ApiPart) -> Response:
    return await anyio.to_thread.run_sync(_metrics, api, limiter=_threads)


def _metrics(api: Api) -> Response:
    # A database that is away is told by /health/ready; its gauges keep their last value.
    with suppress(Refused), api.store.read() as session:
        now = api.control.clock()
        outbox_metrics.observe(session, now)
        payment_metrics.observe(session, now)
        partner_metrics.observe(session, now)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
