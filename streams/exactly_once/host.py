"""Everything that lanes, fetching and the transport may ask of the runtime, as one protocol."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from aiokafka import TopicPartition

if TYPE_CHECKING:
    from schemas.progress import TopicIds
    from streams.exactly_once.batches import Batch
    from streams.exactly_once.config import Committed, RuntimeConfig
    from streams.exactly_once.lanes import Lane
    from streams.exactly_once.transport import BatchConsumer


class Host(Protocol):
    """The runtime (`runtime.ExactlyOnce`), as its parts see it."""

    @property
    def config(self) -> "RuntimeConfig": ...

    @property
    def client_settings(self) -> Mapping[str, Any]: ...

    @property
    def room(self) -> asyncio.Event:
        """Set when a lane has room again."""

    @property
    def on_commit(self) -> "Callable[[Committed], None]": ...

    @property
    def on_recovered(self) -> Callable[[int, int, float], None]: ...

    def fatal(self, where: str, error: BaseException) -> None:
        """Ends the process."""

    # ---- for lanes

    async def topic_ids(self) -> "TopicIds": ...

    async def start_positions(
        self, partition: int, committed: dict[str, int]
    ) -> dict[str, int]: ...

    async def begin_fetching(self, lane: "Lane") -> None: ...

    async def input_ends(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]: ...

    def replace(self, lane: "Lane") -> None: ...

    # ---- for the transport

    def local_partitions(self) -> list[int]: ...

    async def attach(self, consumer: "BatchConsumer") -> None: ...

    async def detach(self) -> None: ...

    def start_lanes(self, partitions: Iterable[int]) -> None: ...

    async def end_lanes(self) -> None: ...

    def lanes_with_room(self) -> "dict[TopicPartition, Lane]": ...

    async def wait_for_room(self, longest_s: float) -> None: ...

    async def fetch_main(self, lanes: "Mapping[TopicPartition, Lane]") -> "list[Batch]": ...
