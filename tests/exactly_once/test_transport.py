"""What the transport does where Kafka fails it."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from streams.exactly_once.transport import BatchConsumer

TP = TopicPartition("numbers", 0)


class _Ended(BaseException):
    """Stands for the end of the process."""


class _Runtime:
    def lanes_with_room(self) -> dict[TopicPartition, Any]:
        return {TP: SimpleNamespace()}

    async def fetch_main(self, lanes: Any) -> Any:
        raise KafkaTimeoutError("Failed to get offsets by times in 40000 ms")

    def fatal(self, where: str, error: BaseException) -> None:
        raise _Ended(f"{where}: {error}")


class _Consumer(BatchConsumer):
    """Without Faust's start: only what `getmany` needs."""

    flow_active = True
    should_stop = False
    runtime: Any = _Runtime()

    def __init__(self) -> None:
        self._thread = SimpleNamespace(note_poll=lambda: None)


async def test_end_offsets_that_do_not_come_end_the_process_at_once() -> None:
    with pytest.raises(_Ended, match=r"fetching: .*offsets"):
        async for _ in _Consumer().getmany(1.0):
            pass
