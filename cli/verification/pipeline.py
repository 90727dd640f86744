"""The real pipeline as processes: broker, ClickHouse, workers and sink, started and hurt.

`Process` is one of ours (a worker, the sink), restarted by `Pipeline.watch` when it ends by itself,
as a supervisor does. Engines are restarted by who kills them.
"""

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cli.verification.cast import ALIAS_SECRET
from deploy.embedded import EmbeddedClickHouse, EmbeddedKafka
from deploy.embedded.child import ChildProcess, clean_environment
from schemas.settings import Settings
from streams.kafka import create_topics
from warehouse.migrations import migrate

PARTITIONS: Final = 8
SESSION_TIMEOUT_S: Final = 5
LATE_GRACE_S: Final = 3
FORFEIT_INTERVAL_S: Final = 1.0
WATCH_INTERVAL_S: Final = 0.1
STOP_S: Final = 20.0
COMMAND_TIMEOUT_S: Final = 300.0
RESTARTS_LIMIT: Final = 400
"""Ends by itself, of all processes of a run: beyond it something is broken for good."""


class PipelineError(RuntimeError):
    """The pipeline itself cannot be run; the text says where its logs are."""


@dataclass
class Process:
    """A process of the pipeline with its log; `should_run` says whether `watch` restarts it."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    should_run: bool = False
    ended_by_itself: int = 0

    def __post_init__(self) -> None:
        self._child = ChildProcess(self.name, self.log, die_with_parent=True, keeps_output=True)

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    @property
    def exit_code(self) -> int | None:
        return self._child.exit_code

    def start(self) -> None:
        self.should_run = True
        with self.log.open("ab") as log:
            log.write(b"---- start\n")
        self._child.start(self.command, self.environment)

    def kill(self) -> None:
        """`kill -9`, and stays down until `start`. Also for a frozen one."""
        self.should_run = False
        self._child.kill()

    def freeze(self) -> None:
        self._child.send(signal.SIGSTOP)

    def wake(self) -> None:
        self._child.send(signal.SIGCONT)

    async def stop(self) -> None:
        """SIGTERM; killed when it takes too long."""
        self.should_run = False
        await asyncio.to_thread(self._child.stop, STOP_S)


@dataclass
class Pipeline:
    """Everything under one data directory. `stop_all` leaves no process behind."""

    directory: Path
    workers_wanted: int
    recovery_s: float = 0.0
    request_timeout_s: float = 90.0
    workers: list[Process] = field(default_factory=list)
    further: list[Process] = field(default_factory=list)
    """What also runs beside it and is watched, as an API."""

    def __post_init__(self) -> None:
        self.kafka = EmbeddedKafka(self.directory)
        self.clickhouse = EmbeddedClickHouse(self.directory)

    async def start(self) -> None:
        """Engines, topics, tables, then our processes. Raises EngineError."""
        await asyncio.gather(
            asyncio.to_thread(self.kafka.start), asyncio.to_thread(self.clickhouse.start)
        )
        self.settings = self._settings()
        await create_topics(self.settings)
        await asyncio.to_thread(migrate, self.settings)
        self.sink = self._process("sink", "sink", [sys.executable, "-m", "cli", "sink"])
        self.sink.start()
        for number in range(self.workers_wanted):
            self.workers.append(self._worker(f"worker-{number + 1}"))
            self.workers[-1].start()
        self.guest = self._worker("worker-guest")

    @property
    def processes(self) -> list[Process]:
        return [*self.workers, self.guest, self.sink, *self.further]

    async def watch(self) -> None:
        """Restarts what ended by itself, for ever. Raises PipelineError when that never helps."""
        while True:
            for process in self.processes:
                if process.should_run and not process.is_running:
                    process.ended_by_itself += 1
                    if sum(each.ended_by_itself for each in self.processes) > RESTARTS_LIMIT:
                        raise PipelineError(
                            f"{process.name} ended again (exit code {process.exit_code}); "
                            f"see {process.log}"
                        )
                    process.start()
            await asyncio.sleep(WATCH_INTERVAL_S)

    def lose_disk(self, worker: Process) -> None:
        """The worker must be down."""
        shutil.rmtree(self.settings.data_dir / f"worker-{worker.name}", ignore_errors=True)

    async def stop_ours(self) -> None:
        """Workers and sink, cleanly; the engines stay for the comparison."""
        await asyncio.gather(*(process.stop() for process in self.processes))

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """A command of ours until its end; what it printed. Raises PipelineError if it fails."""
        finished = subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            env=dict(environment or self.sink.environment),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if finished.returncode:
            raise PipelineError(f"metering {' '.join(arguments)} failed: {finished.stderr.strip()}")
        return finished.stdout

    def stop_all(self) -> None:
        for process in (*self.workers, *self.further, *self._others()):
            process.kill()
        self.clickhouse.kill()
        self.kafka.kill()

    def _others(self) -> list[Process]:
        return [process for name in ("guest", "sink") if (process := getattr(self, name, None))]

    def _worker(self, name: str) -> Process:
        module = ["cli", "worker"]
        if self.recovery_s:
            module = [
                "cli.verification.slow_worker",
                str(self.recovery_s),
                str(self.request_timeout_s),
            ]
        return self._process(name, name, [sys.executable, "-m", *module])

    def _process(self, name: str, instance: str, command: list[str]) -> Process:
        environment = clean_environment(
            {**_variables(self.settings), "METERING_INSTANCE_ID": instance}
        )
        return Process(name, command, environment, self.directory / f"{name}.log")

    def _settings(self) -> Settings:
        writer = self.clickhouse.writer
        return Settings.model_validate(
            {
                "app_id": "verify",
                "data_dir": self.directory / "data",
                "kafka_bootstrap": self.kafka.bootstrap,
                "clickhouse_url": self.clickhouse.url,
                "clickhouse_user": writer.name,
                "clickhouse_password": writer.password,
                "partitions": PARTITIONS,
                "alias_secret": ALIAS_SECRET,
                "metrics_port": 0,
                "sink_metrics_port": 0,
                "late_grace_s": LATE_GRACE_S,
                "forfeit_interval_s": FORFEIT_INTERVAL_S,
                "session_timeout_s": SESSION_TIMEOUT_S,
                "batch_max_events": 500,
                "transaction_timeout_s": 10,
                "sink_batch_max_rows": 5_000,
                "sink_batch_max_wait_s": 0.3,
            }
        )


def _variables(settings: Settings) -> dict[str, str]:
    """The settings that are not the defaults, as a process is told them."""
    variables = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
        variables[f"METERING_{name.upper()}"] = text
    return variables
