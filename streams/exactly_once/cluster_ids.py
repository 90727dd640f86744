"""Cluster id and topic ids, which tell whether a local store belongs to the topics at hand.

aiokafka speaks Metadata up to version 5; topic ids came with version 10. This is version 12 of
the Kafka protocol, and nothing else.
"""

import uuid
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from schemas.progress import TopicIds


class _Uuid(AbstractType):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("topic_authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequestV12(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _MetadataResponse
    FLEXIBLE_VERSION = True
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestV12]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        rows: list[Any] = [(uuid.UUID(int=0), topic, {}) for topic in self._topics]
        return request_struct_class(rows, False, False, {})


async def read_ids(client: AIOKafkaClient, topics: Sequence[str]) -> TopicIds:
    """The cluster's id and the id of each topic.

    Raises LookupError if a topic does not exist: `metering topics create` makes them.
    """
    response = await client.send(client.get_random_node(), _MetadataRequest(topics))
    ids = {row[1]: str(row[2]) for row in response.topics if row[0] == 0}
    missing = [topic for topic in topics if topic not in ids]
    if missing:
        raise LookupError(f"topics {', '.join(missing)} do not exist: run `metering topics create`")
    return TopicIds(response.cluster_id or "", ids)


def tag(ids: TopicIds) -> str:
    """What a local store is labelled with."""
    return f"{ids.cluster}:" + ",".join(f"{name}={ids.ids[name]}" for name in sorted(ids.ids))
