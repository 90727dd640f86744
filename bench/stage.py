"""What a run stands on: broker, settings, workload, filled topics; taken down again in any case."""

import asyncio
import shutil
import tempfile
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bench import loading
from bench.engines import PipelineProcess
from bench.sampling import BROKER, ENGINE
from bench.workload import Workload
from deploy.embedded import EmbeddedKafka
from deploy.embedded.ports import free_port
from schemas import topics
from schemas.settings import Settings

SEED: Final = 7
PARTITIONS: Final = 8
PREFIX: Final = "bench."
STUCK_AFTER_S: Final = 120.0
"""An engine that processes nothing for so long is given up."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is run. The defaults take about ten minutes on two cores."""

    events: int = 2_000_000
    seen: int = 10_000_000
    slices: int = 4
    plain_events: int = 8_000
    """A slice."""
    sink_events: int = 500_000
    latency_s: float = 15.0
    latency_rate: int = 10_000
    organizations: int = 2_000
    batch_max_events: int = Settings.model_fields["batch_max_events"].default
    """Of worker and floor: a slice must be many batches."""

    @property
    def planned_events(self) -> int:
        """All that the pipeline is given."""
        return self.events + self.sink_events + int(self.latency_s * self.latency_rate)


QUICK: Final = Sizes(
    events=24_000,
    seen=20_000,
    slices=1,
    plain_events=1_500,
    sink_events=6_000,
    latency_s=2.0,
    latency_rate=500,
    organizations=40,
    batch_max_events=500,
)


class Stage(AbstractAsyncContextManager["Stage"]):
    """`async with Stage(sizes) as stage`: a broker of its own in a temporary directory."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.started_s = time.monotonic()
        self.directory = Path(tempfile.mkdtemp(prefix="metering-bench-", dir=_roomy_directory()))
        self.kafka = EmbeddedKafka(self.directory)
        self.port, self.sink_port = free_port(), free_port()
        self.values: dict[str, Any] = {
            "kafka_bootstrap": self.kafka.bootstrap,
            "topic_prefix": PREFIX,
            "app_id": "bench",
            "instance_id": "one",
            "data_dir": str(self.directory / "data"),
            "partitions": PARTITIONS,
            "batch_max_events": sizes.batch_max_events,
            "metrics_port": self.port,
            "sink_metrics_port": self.sink_port,
            "log_level": "warning",
        }
        self.settings = Settings(**self.values)
        self.seen_ends: list[int] = []
        self.workload = self.new_workload(sizes.planned_events)
        self.worker = PipelineProcess(
            "worker", self.values, self.port, self.directory / "worker.log"
        )

    def new_workload(self, events: int, *, repeating: bool = True) -> Workload:
        return Workload(
            seed=SEED,
            planned_events=events,
            organizations=self.sizes.organizations,
            partitions=PARTITIONS,
            # Usage of yesterday: neither too old nor ahead of its append time.
            at=datetime.now(UTC) - timedelta(days=1),
            repeating=repeating,
        )

    @property
    def usage(self) -> str:
        return self.settings.topic(topics.USAGE)

    def pids(self, engine: int, **others: int) -> dict[str, int]:
        """What `sampling.watch` is to look at."""
        assert self.kafka.pid is not None, "the broker runs while the stage stands"
        return {ENGINE: engine, BROKER: self.kafka.pid, **others}

    async def __aenter__(self) -> "Stage":
        await asyncio.to_thread(self.kafka.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.worker.kill()
        await asyncio.to_thread(self.kafka.stop)
        shutil.rmtree(self.directory, ignore_errors=True)

    async def prepare(self) -> None:
        """Topics, facts, and the ids seen before."""
        await loading.prepare(self.settings, self.workload, self.sizes.seen)
        self.seen_ends = await loading.ends(self.settings, self.settings.topic(topics.SEEN))

    async def fill(self, events: int) -> int:
        """Adds events to `usage`; answers how many records it holds then."""
        async with loading.producer(self.settings) as producer:
            await loading.fill(producer, self.usage, self.workload.events(events))
        return sum(self.workload.generated)


def _roomy_directory() -> str | None:
    """Several GB are written: on a disk, where there is one beside a /tmp in memory."""
    on_disk = Path("/var/tmp")  # noqa: S108 - mkdtemp makes a directory of its own in it
    return str(on_disk) if on_disk.is_dir() else None
