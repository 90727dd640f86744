"""The worker process: serves metrics and health, waits for Kafka, runs the app until a signal."""

import asyncio
import time
from typing import Final

import structlog
import uvloop
from aiokafka.errors import KafkaError

from schemas.settings import Settings
from streams.app import build_app
from streams.exactly_once import ExactlyOnce
from streams.exactly_once.runtime import EXIT_FAILED
from streams.health import cannot_listen, serve_health
from streams.kafka import check_topics, no_answer
from streams.metrics import WorkerHealth
from streams.worker_process import run_faust

log = structlog.get_logger()

LAG_INTERVAL_S: Final = 5.0
LAG_TIMEOUT_S: Final = 5.0
ANY_PARTITION: Final = 0


def run(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT, then returns by SystemExit. A failure ends the process."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    health = WorkerHealth()
    loop.run_until_complete(_prepare(settings, health))
    app, runtime = build_app(settings, health)

    @app.task  # type: ignore[untyped-decorator]
    async def watch() -> None:
        await _watch_lag(runtime, health)

    run_faust(app, loop)


async def _prepare(settings: Settings, health: WorkerHealth) -> None:
    """Opens the port first: whoever asks is told what the worker waits for."""
    try:
        await serve_health(settings.metrics_host, settings.metrics_port, health.alive, health.ready)
    except OSError as error:
        where = (settings.metrics_host, settings.metrics_port)
        problem = cannot_listen(error, *where, "METERING_METRICS_PORT")
        log.critical("worker ends", error=problem)
        raise SystemExit(EXIT_FAILED) from None
    while True:
        try:
            await check_topics(settings)
        except KafkaError as error:
            health.kafka.begin(no_answer(settings, error))
            await health.kafka.wait()
        else:
            health.kafka.end()
            return


async def _watch_lag(runtime: ExactlyOnce, health: WorkerHealth) -> None:
    """How far behind the lanes are, as the broker's ends tell, and whether it tells them."""
    while True:
        await asyncio.sleep(LAG_INTERVAL_S)
        if not runtime.is_attached:
            continue
        running = [number for number, lane in runtime.lanes.items() if lane.running]
        try:
            async with asyncio.timeout(LAG_TIMEOUT_S):
                # A worker without partitions needs a broker all the same.
                ends = await runtime.input_ends(running or [ANY_PARTITION])
        except (KafkaError, TimeoutError) as error:
            health.kafka.begin(str(error) or "no answer")
            continue
        health.kafka.end()
        # Some partitions may have been revoked while the broker was asked.
        lanes = {number: lane for number, lane in runtime.lanes.items() if lane.running}
        lags = {
            (name, number): max(0, end - lanes[number].positions[name])
            for (name, number), end in ends.items()
            if number in lanes
        }
        waiting_ms = [lane.oldest_queued_ms for lane in lanes.values() if lane.oldest_queued_ms]
        age_s = max(0.0, time.time() - min(waiting_ms) / 1000) if waiting_ms else 0.0
        health.observe_lag(lags, age_s)
