"""`metering demo-traffic`: publishes the demo's organisations, then a live trickle of usage.

A part of `up --demo` of its own, so that it can fail and be restarted like any other. State: the
file `demo.json` in the data directory, with the time of the first start and whether the past
usage is acknowledged. Everything may be repeated: facts by version, past usage by event id.
"""

import asyncio
import json
import signal
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import uuid4

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from cli.configuration import load_settings
from cli.errors import one_line
from cli.kafka import connected, producer_settings
from cli.logging_setup import set_up_logging
from cli.up import demo
from schemas.codec import encode
from schemas.settings import Settings
from schemas.topics import CREDITS, MEMBERSHIPS, USAGE
from warehouse import dimensions
from warehouse.connection import connect

STATE_FILE: Final = "demo.json"
PAUSE_S: Final = 1.0
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
    state = _State(settings.data_dir / STATE_FILE)
    await asyncio.to_thread(_write_names, settings, state.started_at)
    async with connected(AIOKafkaProducer(**producer_settings(settings)), settings) as producer:
        publisher = _Publisher(producer, settings)
        await _publish_facts(publisher, settings, state)
        if not state.is_past_sent:
            for company in demo.COMPANIES:
                await publisher.send_all(USAGE, demo.past_usage(company, state.started_at))
            state.past_is_sent()
        log.info("demo organisations published", past_events=PAST_EVENTS_TOTAL)
        await _trickle(publisher, stopping)


PAST_EVENTS_TOTAL: Final = demo.PAST_EVENTS * len(demo.COMPANIES)


class _State:
    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
        else:
            found = {"started_at": datetime.now(UTC).isoformat(), "past_sent": False}
        self.started_at = datetime.fromisoformat(found["started_at"])
        self.is_past_sent = bool(found["past_sent"])
        self._write()

    def past_is_sent(self) -> None:
        self.is_past_sent = True
        self._write()

    def _write(self) -> None:
        found = {"started_at": self.started_at.isoformat(), "past_sent": self.is_past_sent}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(found) + "\n", encoding="utf-8")
        fresh.replace(self._path)


class _Publisher:
    def __init__(self, producer: AIOKafkaProducer, settings: Settings) -> None:
        self._producer = producer
        self._settings = settings

    async def send_all(self, topic: str, messages: Iterable[Any]) -> None:
        """Returns once all are acknowledged. Raises KafkaError, TimeoutError."""
        name = self._settings.topic(topic)
        async with asyncio.timeout(SEND_TIMEOUT_S):
            waiting = [
                await self._producer.send(name, encode(message), key=_organization(message))
                for message in messages
            ]
            await asyncio.gather(*waiting)


def _organization(message: Any) -> bytes:
    if isinstance(message, dict):
        return str(message["organizationid"]).encode()
    return str(message.organization_id).encode()


def _write_names(settings: Settings, at: datetime) -> None:
    client = connect(settings)
    try:
        for company in demo.COMPANIES:
            dimensions.write(client, demo.names(company, at))
    finally:
        client.close()


async def _publish_facts(publisher: _Publisher, settings: Settings, state: _State) -> None:
    secret = settings.alias_secret.get_secret_value().encode()
    for company in demo.COMPANIES:
        facts = demo.memberships(company, state.started_at, secret)
        await publisher.send_all(MEMBERSHIPS, facts)
        grants = demo.credits(company, state.started_at, datetime.now(UTC))
        await publisher.send_all(CREDITS, grants)


async def _trickle(publisher: _Publisher, stopping: asyncio.Event) -> None:
    random = Random()  # noqa: S311 - a demo, no secrets
    said = False
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
            await publisher.send_all(USAGE, events)
            said = False
        except (KafkaError, TimeoutError) as error:
            # Not sent again: it is only a demo, and what comes next will do.
            if not said:
                log.warning("usage not acknowledged", error=one_line(error))
                said = True
        try:
            await asyncio.wait_for(stopping.wait(), PAUSE_S)
        except TimeoutError:
            continue
