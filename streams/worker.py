"""The worker process: waits for Kafka, serves metrics and health, runs the app until a signal."""

import asyncio
import time
from typing import Final

import structlog
import uvloop
from aiokafka.errors import KafkaError

from schemas.settings import Settings
from streams.app import build_app
from streams.exactly_once import ExactlyOnce
from streams.health import serve_health
from streams.kafka import check_topics
from streams.metrics import WorkerHealth
from streams.worker_process import run_faust

log = structlog.get_logger()

LAG_INTERVAL_S: Final = 2.0
LAG_TIMEOUT_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0


def run(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT, then returns by SystemExit. A failure ends the process."""
    uvloop.install()
    asyncio.run(_wait_for_topics(settings))
    health = WorkerHealth()
    app, runtime = build_app(settings, health)

    @app.task  # type: ignore[untyped-decorator]
    async def watch() -> None:
        try:
            await serve_health(
                settings.metrics_host, settings.metrics_port, health.alive, health.ready
            )
            await _watch_lag(runtime, health)
        except OSError as error:
            runtime.fatal(f"metrics port {settings.metrics_port}", error)

    run_faust(app)


async def _wait_for_topics(settings: Settings) -> None:
    """Waits with growing pauses until the broker answers; says so once, and once when it does."""
    pause_s, said = FIRST_PAUSE_S, False
    while True:
        try:
            await check_topics(settings)
        except KafkaError as error:
            if not said:
                log.warning("waiting for Kafka", at=settings.kafka_bootstrap, error=repr(error))
                said = True
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        else:
            if said:
                log.info("Kafka answers")
            return


async def _watch_lag(runtime: ExactlyOnce, health: WorkerHealth) -> None:
    """How far behind the lanes are, as the broker's ends tell."""
    silent = False
    while True:
        await asyncio.sleep(LAG_INTERVAL_S)
        lanes = {number: lane for number, lane in runtime.lanes.items() if lane.running}
        if not lanes:
            continue
        try:
            async with asyncio.timeout(LAG_TIMEOUT_S):
                ends = await runtime.input_ends(lanes)
        except (KafkaError, TimeoutError) as error:
            if not silent:
                log.warning("Kafka does not answer", error=type(error).__name__)
            silent = True
            continue
        if silent:
            log.info("Kafka answers again")
            silent = False
        lags = {
            (name, number): max(0, end - lanes[number].positions[name])
            for (name, number), end in ends.items()
        }
        waiting_ms = [lane.oldest_queued_ms for lane in lanes.values() if lane.oldest_queued_ms]
        age_s = max(0.0, time.time() - min(waiting_ms) / 1000) if waiting_ms else 0.0
        health.observe_lag(lags, age_s)
