"""Kafka clients for commands: short-lived, with failures as one line."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from cli.errors import WRONG_SETTINGS, Failure, Unreachable, one_line
from schemas.settings import Settings
from streams.kafka import client_options, login_problem, no_answer

CONNECT_S: Final = 10.0
STOP_S: Final = 10.0
REQUEST_MS: Final = 30_000
IDLE_S: Final = 30.0
"""Nothing arrived for so long although the log goes on: Kafka is not serving it."""

Client = TypeVar("Client", bound=Any)


def client_settings(settings: Settings) -> dict[str, Any]:
    try:
        options = client_options(settings)
    except OSError as error:
        raise Failure(
            f"METERING_KAFKA_SECURITY_CA_FILE cannot be used: {one_line(error)}", WRONG_SETTINGS
        ) from None
    return {**options, "client_id": f"{settings.app_id}-cli"}


def producer_settings(settings: Settings) -> dict[str, Any]:
    """An idempotent producer that waits for all replicas."""
    compression = None if settings.compression == "none" else settings.compression
    return {
        **client_settings(settings),
        "enable_idempotence": True,
        "acks": "all",
        "compression_type": compression,
        "linger_ms": 5,
        "max_batch_size": 128 * 1024,
        "request_timeout_ms": REQUEST_MS,
    }


def reader(settings: Settings, topic: str) -> AIOKafkaConsumer:
    """Reads all partitions of an unprefixed topic, what is committed: no group, no offsets kept."""
    return AIOKafkaConsumer(
        settings.topic(topic),
        **client_settings(settings),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )


async def read_to_end(settings: Settings, topic: str) -> AsyncIterator[Any]:
    """Every committed record of an unprefixed topic that was there when reading began; in order
    within a partition.

    Raises `Failure` when there is no such topic or Kafka stops answering.
    """
    async with connected(reader(settings, topic), settings) as consumer:
        partitions = sorted(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        last_s = time.monotonic()
        while behind := [each for each in partitions if await consumer.position(each) < ends[each]]:
            batches = await consumer.getmany(*behind, timeout_ms=200)
            for partition, records in batches.items():
                for record in records:
                    if record.offset < ends[partition]:
                        yield record
            if batches:
                last_s = time.monotonic()
            elif time.monotonic() - last_s > IDLE_S:
                raise Failure(f"Kafka sends nothing of {behind[0].topic}/{behind[0].partition}")


@asynccontextmanager
async def connected(client: Client, settings: Settings) -> AsyncIterator[Client]:
    """The client, started; stopped at the end. Raises `Failure` when Kafka does not answer."""
    try:
        await asyncio.wait_for(client.start(), CONNECT_S)
    except UnknownTopicOrPartitionError:
        await _stop(client)
        raise Failure("the topics are not there: run `metering topics create`") from None
    except (KafkaError, OSError, TimeoutError) as error:
        await _stop(client)
        if problem := await login_problem(settings):
            raise Failure(problem) from None
        raise Unreachable(
            f"Kafka at {no_answer(settings, error)}: "
            "start it (`metering up`), or set METERING_KAFKA_BOOTSTRAP"
        ) from None
    try:
        yield client
    except BaseException:
        # Why it ended early says more than that Kafka did not hear of it.
        await _stop(client)
        raise
    if not await _stop(client):
        raise Failure("Kafka went away before everything was sent")


async def _stop(client: Any) -> bool:
    """Whether it said goodbye in time."""
    try:
        await asyncio.wait_for(client.stop(), STOP_S)
    except (KafkaError, OSError, TimeoutError):
        return False
    return True
