"""Sending that survives a broker killed in mid-send: what was not acknowledged is sent again.

Sending again may put a record into the topic twice, as any product's retry does; the pipeline must
cope, and the verifier reads from the topics what really came.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from cli.verification.messages import Message

IN_FLIGHT: Final = 1_000
REQUEST_TIMEOUT_MS: Final = 10_000
ACKNOWLEDGED_WITHIN_S: Final = 15.0
PAUSE_S: Final = 0.5
STOP_S: Final = 2.0


class Feed:
    """One producer at a time; a new one after a failure."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer: AIOKafkaProducer | None = None
        self.acknowledged = 0

    async def send(self, messages: Iterable[Message]) -> None:
        """Returns when all of them are acknowledged. Raises MessageSizeTooLargeError."""
        remaining = iter(messages)
        while batch := list(islice(remaining, IN_FLIGHT)):
            total = len(batch)
            while batch:
                batch = await self._try(batch)
                if batch:
                    await asyncio.sleep(PAUSE_S)
            self.acknowledged += total

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)

    async def _try(self, batch: list[Message]) -> list[Message]:
        """Those that were not acknowledged."""
        futures: list[Any] = []
        try:
            # A producer whose sender has failed lets `send` wait for ever.
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
                producer = await self._connected()
                for message in batch:
                    futures.append(
                        await producer.send(
                            message.topic,
                            message.value,
                            key=message.key,
                            partition=message.partition,
                            headers=list(message.headers),
                        )
                    )
        except (KafkaError, OSError, TimeoutError):
            await self._give_up()
        failed = batch[len(futures) :]
        if futures:
            # A producer that is given up on may leave futures that nobody ever resolves.
            await asyncio.wait(futures, timeout=ACKNOWLEDGED_WITHIN_S)
        for message, future in zip(batch, futures, strict=False):
            if future.done() and isinstance(future.exception(), MessageSizeTooLargeError):
                raise future.exception()
            if not future.done() or future.cancelled() or future.exception() is not None:
                failed.append(message)
        if failed:
            await self._give_up()
        return failed

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                enable_idempotence=True,
                acks="all",
                linger_ms=2,
                max_request_size=32 << 20,
                max_batch_size=256 << 10,
                compression_type="snappy",
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                retry_backoff_ms=50,
            )
            try:
                await producer.start()
            except (KafkaError, OSError):
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    async def _give_up(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await producer.stop()
    except (KafkaError, OSError, TimeoutError):
        return
