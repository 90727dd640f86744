"""`metering demo-traffic`: the demo's past usage, then a live trickle.

A part of `up --demo` of its own, so that it can fail and be restarted like any other. The
organizations are there already (`cli.up.control`); their usage waits until Kafka has every fact of
theirs, since nothing may be charged to an unknown organization. Everything may be repeated: past
usage has the same ids each time.
"""

import asyncio
import signal
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from random import Random
from typing import Any, Final
from uuid import uuid4

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from api.seed import waiting_facts
from cli.configuration import load_settings
from cli.errors import Failure, one_line
from cli.kafka import connected, producer_settings
from cli.logging_setup import set_up_logging
from cli.up import demo
from cli.up.demo_state import DemoState
from schemas.codec import encode
from schemas.settings import Settings
from schemas.topics import USAGE

PUBLISH_TIMEOUT_S: Final = 60.0
PUBLISH_LOOK_S: Final = 0.1
PAUSE_S: Final = 1.0
LIVELY_S: Final = 120.0
"""So long a demo is looked at; then its usage comes seldom, and costs an idle machine little."""
CALM_PAUSE_S: Final = 15.0
EVENTS_A_ROUND: Final = 2
SEND_TIMEOUT_S: Final = 60.0

log = structlog.get_logger()


def main(_arguments: list[str]) -> int:
    settings = load_settings()
    set_up_logging(settings.log_format, settings.log_level)
    asyncio.run(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    state = DemoState(settings.data_dir)
    if not await _facts_published(settings, stopping):
        return
    async with connected(AIOKafkaProducer(**producer_settings(settings)), settings) as producer:
        publisher = _Publisher(producer, settings)
        if not state.is_past_sent:
            for company in demo.COMPANIES:
                await publisher.send_all(demo.past_usage(company, state.started_at))
            state.past_is_sent()
            log.info("past usage sent", events=PAST_EVENTS_TOTAL)
        await _trickle(publisher, stopping)


PAST_EVENTS_TOTAL: Final = demo.PAST_EVENTS * len(demo.COMPANIES)


class _Publisher:
    def __init__(self, producer: AIOKafkaProducer, settings: Settings) -> None:
        self._producer = producer
        self._settings = settings

    async def send_all(self, events: Iterable[dict[str, Any]]) -> None:
        """Returns once all are acknowledged. Raises KafkaError, TimeoutError."""
        name = self._settings.topic(USAGE)
        async with asyncio.timeout(SEND_TIMEOUT_S):
            waiting = [
                await self._producer.send(name, encode(event), key=event["organizationid"].encode())
                for event in events
            ]
            await asyncio.gather(*waiting)


async def _facts_published(settings: Settings, stopping: asyncio.Event) -> bool:
    """True once Kafka has all facts of the demo, False when it is to stop before.

    Raises `Failure` after `PUBLISH_TIMEOUT_S`.
    """
    organization_ids = [company.organization_id for company in demo.COMPANIES]
    deadline = time.monotonic() + PUBLISH_TIMEOUT_S
    while waiting := await asyncio.to_thread(waiting_facts, settings, organization_ids):
        if time.monotonic() > deadline:
            raise Failure(
                f"{waiting} facts of the demo's organizations are not in Kafka after "
                f"{PUBLISH_TIMEOUT_S:.0f} s: does the API run, and publish?"
            )
        await asyncio.sleep(PUBLISH_LOOK_S)
        if stopping.is_set():
            return False
    return True


def pause_s(running_s: float) -> float:
    """Between two rounds of live usage, after so long a time of it."""
    return PAUSE_S if running_s < LIVELY_S else CALM_PAUSE_S


async def _trickle(publisher: _Publisher, stopping: asyncio.Event) -> None:
    random = Random()  # noqa: S311 - a demo, no secrets
    is_reported, started_s = False, time.monotonic()
    while not stopping.is_set():
        events = [
            demo.event_of(
                random.choice(demo.COMPANIES),
                random,
                f"live_{uuid4().hex}",
                demo.LIVE_SOURCE,
                datetime.now(UTC),
            )
            for _ in range(EVENTS_A_ROUND)
        ]
        try:
            await publisher.send_all(events)
            is_reported = False
        except (KafkaError, TimeoutError) as error:
            # The event is not sent again: this is only a demo, and the next event will do.
            if not is_reported:
                log.warning("usage not acknowledged", error=one_line(error))
                is_reported = True
        try:
            await asyncio.wait_for(stopping.wait(), pause_s(time.monotonic() - started_s))
        except TimeoutError:
            continue
