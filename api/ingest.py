"""Usage by HTTP into the topic `usage`: judged by the worker's own parse, then acknowledged.

An event is accepted when the broker has it, never earlier. Sending one again is harmless: the
worker knows it by organization, source and id.
"""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import Counter
from sqlalchemy import select

from api.errors import unavailable
from api.storage.models import Organization
from api.storage.store import Store
from schemas import topics
from schemas.reasons import Reason
from schemas.settings import Settings
from streams.decisions.envelopes import is_utf8
from streams.decisions.events import Limits
from streams.decisions.intake import Intake
from streams.decisions.outcomes import Rejected
from streams.kafka import client_options, no_answer

log = structlog.get_logger()

ACKNOWLEDGE_S: Final = 10.0
REQUEST_TIMEOUT_MS: Final = 8_000
LINGER_MS: Final = 2
RETRY_S: Final = 1
ASK_S: Final = 3.0
ASK_AGAIN_S: Final = 1.0
KNOWN_MAX: Final = 100_000
BATCH_EVENTS_MAX: Final = 10_000
QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
ESCAPED: Final = re.compile(r"\\(.)")

EVENTS: Final = Counter(
    "metering_ingest_events_total", "Events that came by HTTP, by outcome.", ["outcome"]
)

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as it came: the record's value, and for binary mode its `ce_` headers."""

    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event was not taken; `reason` is a word of `schemas.reasons`."""

    index: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    accepted: int
    refused: list[Refusal]


@dataclass
class Ingest:
    """The producer of one process, opened with the first event. Belongs to one event loop.

    At most `waiting_max` events wait for the broker at once; more is back-pressure (503).
    """

    settings: Settings
    store: Store
    waiting_max: int
    _producer: Any = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _ask_again_s: float = 0.0
    _problem: str = ""
    _waiting: int = 0
    _known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._intake = Intake(Limits(timedelta(days=self.settings.max_event_age_days)))

    async def problem(self) -> str:
        """Why no event can be delivered now; empty where the brokers answer. Asked of them at most
        once in `ASK_AGAIN_S`, however many want to know."""
        async with self._asking:
            if time.monotonic() >= self._ask_again_s:
                self._problem = await self._ask()
                self._ask_again_s = time.monotonic() + ASK_AGAIN_S
            return self._problem

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(ASK_S):
                producer = await self._open()
                await producer.client.fetch_all_metadata()
        except (KafkaError, TimeoutError, OSError) as error:
            return f"Kafka at {no_answer(self.settings, error)}"
        return ""

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def take(
        self, events: Sequence[Sent], organization_id: str | None, now: datetime
    ) -> Outcome:
        """Publishes what is well-formed and may come from this key, and waits for the broker.

        `organization_id` is the key's, None for one of the whole platform. Raises Refused (503)
        where not all accepted events were acknowledged: send the request again.
        """
        if self._waiting + len(events) > self.waiting_max:
            EVENTS.labels("back_pressure").inc(len(events))
            raise unavailable("back_pressure", "Too many events wait for the broker.", RETRY_S)
        self._waiting += len(events)
        try:
            return await self._take(events, organization_id, now)
        finally:
            self._waiting -= len(events)

    async def _take(
        self, events: Sequence[Sent], organization_id: str | None, now: datetime
    ) -> Outcome:
        refused: list[Refusal] = []
        good: list[tuple[int, str, Sent]] = []
        for index, sent in enumerate(events):
            verdict = self._judge(sent, organization_id, now)
            if isinstance(verdict, Rejected):
                refused.append(Refusal(index, verdict.reason.value, verdict.detail))
            else:
                good.append((index, verdict, sent))
        unknown = await self._unknown({name for _, name, _ in good})
        refused += [
            Refusal(
                index,
                Reason.UNKNOWN_ORGANIZATION.value,
                f"There is no organization {name[:80]!r}.",
            )
            for index, name, _ in good
            if name in unknown
        ]
        accepted = [(name, sent) for _, name, sent in good if name not in unknown]
        if accepted:
            await self._publish(accepted)
        EVENTS.labels("accepted").inc(len(accepted))
        EVENTS.labels("refused").inc(len(refused))
        return Outcome(len(accepted), sorted(refused, key=lambda one: one.index))

    def _judge(self, sent: Sent, organization_id: str | None, now: datetime) -> str | Rejected:
        """The event's organization, or why the worker would not take it."""
        key = organization_id.encode() if organization_id is not None else None
        event = self._intake.parse(sent.value, key, sent.headers, now)
        return event if isinstance(event, Rejected) else event.organization_id

    async def _unknown(self, organization_ids: set[str]) -> set[str]:
        unseen = organization_ids - self._known
        if not unseen:
            return set()
        existing = await asyncio.to_thread(self._find, sorted(unseen))
        if len(self._known) > KNOWN_MAX:
            self._known.clear()
        self._known |= existing
        return unseen - existing

    def _find(self, organization_ids: list[str]) -> set[str]:
        with self.store.read() as session:
            return set(
                session.scalars(
                    select(Organization.id).where(Organization.id.in_(organization_ids))
                )
            )

    async def _publish(self, accepted: Sequence[tuple[str, Sent]]) -> None:
        topic = self.settings.topic(topics.USAGE)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_S):
                producer = await self._open()
                futures = [
                    await producer.send(
                        topic, sent.value, key=name.encode(), headers=list(sent.headers)
                    )
                    for name, sent in accepted
                ]
                await asyncio.gather(*futures)
        except (KafkaError, TimeoutError, OSError) as error:
            EVENTS.labels("not_acknowledged").inc(len(accepted))
            log.warning("usage was not acknowledged", error=repr(error)[:300])
            await self._discard_producer()
            raise unavailable(
                "not_acknowledged",
                "The broker did not acknowledge every event; sending them again is harmless.",
                RETRY_S,
            ) from error

    async def _open(self) -> Any:
        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **client_options(self.settings),
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=LINGER_MS,
                    request_timeout_ms=REQUEST_TIMEOUT_MS,
                    compression_type=None
                    if self.settings.compression == "none"
                    else self.settings.compression,
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def _discard_producer(self) -> None:
        """After a failure an idempotent producer may be stuck for good; the next is a new one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                async with asyncio.timeout(RETRY_S):
                    await producer.stop()
            except (KafkaError, TimeoutError, OSError):
                log.warning("the producer did not stop in time")


def binary_event(headers: Mapping[str, str], body: bytes) -> Sent:
    """Binary content mode: `ce-*` HTTP headers become the `ce_*` headers of the Kafka binding."""
    attributes = tuple(
        (f"ce_{name[3:]}", attribute_bytes(value))
        for name, value in headers.items()
        if name[:3] == "ce-"
    )
    kind = headers.get("content-type", "application/json")
    return Sent(body, (*attributes, ("content-type", kind.encode("latin-1"))))


def attribute_bytes(header: str) -> bytes:
    """The UTF-8 of an attribute from its HTTP header: quotes are taken off, then one round of
    percent-decoding, as the binding says.

    `header` was decoded as Latin-1, which keeps every byte. Clients that do not percent-encode
    send UTF-8 or, in JavaScript, Latin-1.
    """
    quoted = QUOTED.fullmatch(header)
    text = ESCAPED.sub(r"\1", quoted[1]) if quoted else header
    raw = text.encode("latin-1")
    return unquote_to_bytes(raw if is_utf8(raw) else text.encode())


def batch_events(body: bytes) -> list[Sent]:
    """The events of a batch, each with its own bytes as they were. Raises MsgspecError."""
    return [Sent(bytes(raw)) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
