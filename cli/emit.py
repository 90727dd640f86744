"""`metering emit`: JSON lines to a topic, acknowledged or named.

A line is sent as it stands, without being judged: that is the worker's business. Only what cannot
be keyed (no JSON object, no organization) is held back, and said so.
"""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from cli.errors import Failure, one_line
from cli.kafka import connected, producer_settings
from schemas.settings import Settings
from schemas.topics import INPUTS, USAGE, all_topics

IN_FLIGHT_MAX: Final = 20_000
"""Lines sent and not acknowledged yet; reading waits beyond it."""
CHUNK_BYTES: Final = 256 * 1024
CHUNKS_WAITING_MAX: Final = 4
LINE_BYTES_MAX: Final = 32 * 1024 * 1024
NAMED_MAX: Final = 20
"""So many failed lines are named one by one, the rest is counted."""
PROGRESS_S: Final = 1.0
NO_ANSWER_S: Final = 60.0
"""Without any acknowledgement for so long, the rest counts as not acknowledged."""


@dataclass(slots=True)
class Outcome:
    """What became of the lines; `failed` maps a line's number to why, in sending order."""

    acknowledged: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)

    def summary(self, topic: str) -> str:
        seconds = max(time.monotonic() - self.started_s, 1e-6)
        text = f"{self.acknowledged:,} acknowledged in `{topic}`"
        if self.acknowledged >= 1000:
            text += f" in {seconds:.1f} s ({self.acknowledged / seconds:,.0f}/s)"
        return text

    def complaint(self) -> str:
        """Empty when every line was acknowledged."""
        if not self.failed:
            return ""
        lines = [f"  line {number}: {why}" for number, why in list(self.failed.items())[:NAMED_MAX]]
        if len(self.failed) > NAMED_MAX:
            lines.append(f"  … and {len(self.failed) - NAMED_MAX:,} more")
        return f"{len(self.failed):,} not acknowledged:\n" + "\n".join(lines)

    def account(self, topic: str) -> str:
        """What became of the lines read until it ended early."""
        return f"{self.summary(topic)}\n{self.complaint()}\nfurther lines were not read".replace(
            "\n\n", "\n"
        )


class _Named(msgspec.Struct):
    """What of a line tells its organization."""

    organizationid: Any = None
    organization_id: Any = None


_decode_named = msgspec.json.Decoder(_Named).decode


def key_of(line: bytes, topic: str, fallback: str | None) -> bytes:
    """The record's key: the organization. Raises `ValueError` saying why there is none."""
    try:
        header = _decode_named(line)
    except (ValueError, RecursionError):
        raise ValueError("not sent: no JSON object") from None
    key = header.organizationid if topic == USAGE else header.organization_id
    key = fallback if key is None else key
    if not isinstance(key, str) or not key:
        name = "organizationid" if topic == USAGE else "organization_id"
        raise ValueError(f"not sent: no {name}, and no --organization given")
    return key.encode()


async def emit(
    settings: Settings,
    stream: BinaryIO,
    outcome: Outcome,
    topic: str = USAGE,
    organization: str | None = None,
) -> None:
    """Send every line of the stream; returns when each is acknowledged or known to have failed.

    `topic` is unprefixed. Raises `Failure` when Kafka does not answer, or no longer does; the
    outcome holds, also then and when it is cancelled, what became of each line read so far.
    """
    if topic not in INPUTS:
        raise Failure(
            f"`{topic}` is written by the worker alone; choose one of {', '.join(INPUTS)}"
        )
    options = producer_settings(settings)
    options["max_request_size"] = all_topics()[topic].max_message_bytes
    async with connected(AIOKafkaProducer(**options), settings) as producer:
        sender = _Sender(producer, settings.topic(topic), topic, organization, outcome)
        try:
            async for number, line in _lines(stream):
                await sender.send(number, line)
            await sender.drain()
        finally:
            sender.give_up_on_rest()


class _Sender:
    """Keeps at most `IN_FLIGHT_MAX` lines in flight and settles each in the outcome."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        topic_on_broker: str,
        topic: str,
        organization: str | None,
        outcome: Outcome,
    ) -> None:
        self._producer = producer
        self._topic_on_broker = topic_on_broker
        self._topic = topic
        self._organization = organization
        self._outcome = outcome
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._room = asyncio.Event()
        self._shown_s = time.monotonic()

    async def send(self, number: int, line: bytes) -> None:
        try:
            key = key_of(line, self._topic, self._organization)
        except ValueError as error:
            self._outcome.failed[number] = str(error)
            return
        await self._until_fewer_than(IN_FLIGHT_MAX)
        try:
            # The producer itself waits when its buffers are full and the broker is silent.
            async with asyncio.timeout(NO_ANSWER_S):
                future = await self._producer.send(self._topic_on_broker, line, key=key)
        except MessageSizeTooLargeError:
            self._outcome.failed[number] = (
                f"not sent: {len(line):,} bytes, and `{self._topic}` takes at most "
                f"{all_topics()[self._topic].max_message_bytes:,} in a record"
            )
            return
        except (KafkaError, TimeoutError) as error:
            self._outcome.failed[number] = one_line(error)
            return
        self._waiting[number] = future
        future.add_done_callback(lambda sending: self._settle(number, sending))
        self._show_progress()

    async def drain(self) -> None:
        await self._until_fewer_than(1)

    def give_up_on_rest(self) -> None:
        for number in self._waiting:
            self._outcome.failed[number] = "no acknowledgement"
        self._waiting.clear()

    async def _until_fewer_than(self, limit: int) -> None:
        while len(self._waiting) >= limit:
            self._room.clear()
            acknowledged = self._outcome.acknowledged
            try:
                await asyncio.wait_for(self._room.wait(), NO_ANSWER_S)
            except TimeoutError:
                if self._outcome.acknowledged == acknowledged:
                    raise Failure(
                        f"Kafka has acknowledged nothing for {NO_ANSWER_S:.0f} s"
                    ) from None
            self._show_progress()

    def _settle(self, number: int, sending: "asyncio.Future[Any]") -> None:
        if self._waiting.pop(number, None) is None:
            return
        if sending.cancelled():
            self._outcome.failed[number] = "no acknowledgement"
        elif error := sending.exception():
            self._outcome.failed[number] = one_line(error)
        else:
            self._outcome.acknowledged += 1
        self._room.set()

    def _show_progress(self) -> None:
        now_s = time.monotonic()
        if now_s - self._shown_s >= PROGRESS_S and sys.stderr.isatty():
            self._shown_s = now_s
            sys.stderr.write(f"\r{self._outcome.summary(self._topic)} … ")
            sys.stderr.flush()


async def _lines(stream: BinaryIO) -> AsyncIterator[tuple[int, bytes]]:
    """Numbered, non-blank lines as they arrive; a pipe's are not held back until it closes."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(CHUNKS_WAITING_MAX)
    read_some = getattr(stream, "read1", stream.read)

    def read() -> None:
        chunk: bytes | OSError = b"unread"
        while chunk and not isinstance(chunk, OSError):
            room.acquire()
            try:
                chunk = read_some(CHUNK_BYTES)
            except OSError as error:
                chunk = error
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:
                return  # the loop is closed: nobody wants to read on

    # A daemon: when sending fails, nobody waits for the other end of a pipe to say something.
    threading.Thread(target=read, name="emit-reader", daemon=True).start()
    cutter = _Cutter()
    while chunk := await chunks.get():
        if isinstance(chunk, OSError):
            raise Failure(f"reading failed: {chunk.strerror}")
        for numbered in cutter.lines(chunk):
            yield numbered
        room.release()
    for numbered in cutter.lines(b"\n"):
        yield numbered


class _Cutter:
    """Cuts chunks into numbered lines; remembers the unfinished one."""

    def __init__(self) -> None:
        self._number = 0
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def lines(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        *complete, rest = chunk.split(b"\n")
        if complete:
            complete[0] = b"".join([*self._rest, complete[0]])
            self._rest, self._rest_bytes = [], 0
        self._rest.append(rest)
        self._rest_bytes += len(rest)
        if self._rest_bytes > LINE_BYTES_MAX:
            raise Failure(f"line {self._number + 1} is longer than {LINE_BYTES_MAX:,} bytes")
        return self._numbered(complete)

    def _numbered(self, complete: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        for line in complete:
            self._number += 1
            stripped = line.strip()
            if stripped:
                yield self._number, stripped
