"""The parts that `up` runs, each startable and stoppable again: engines and our own processes."""

import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, Protocol

from cli.up.data_dir import DataDirectory
from deploy.embedded.child import ChildProcess, clean_environment

PATIENCE_S: Final = 60.0
STOP_S: Final = 20.0
PROBE_S: Final = 1.0
READY_PATH: Final = "/health/ready"
LIVE_PATH: Final = "/health/live"


class Part(Protocol):
    """One process. `start` returns once it is ready, and raises `EngineError` otherwise."""

    @property
    def pid(self) -> int | None: ...
    @property
    def is_running(self) -> bool: ...
    @property
    def exit_code(self) -> int | None: ...
    def why(self) -> str:
        """What it said went wrong since its last start, on one line; may be empty."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Command:
    """A `metering` command as a part; ready when `health_url`'s port says so (at once without)."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        data_dir: DataDirectory,
        environment: Mapping[str, str],
        *,
        health_port: int | None = None,
    ) -> None:
        self._arguments = arguments
        self._data_dir = data_dir
        self._environment = environment
        self._health_port = health_port
        self._child = self._new_child()

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    @property
    def exit_code(self) -> int | None:
        return self._child.exit_code

    @property
    def log_file(self) -> Path:
        return self._child.output

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def why(self) -> str:
        return self._child.why()

    def launch(self) -> None:
        """Start it and return at once: several parts start side by side."""
        self._child = self._new_child()
        command = [sys.executable, "-m", "cli", *self._arguments]
        self._child.start(command, clean_environment(self._environment))

    def wait_until_ready(self) -> None:
        """Raises `EngineError` when it ends before, or for `PATIENCE_S` neither makes progress nor
        says that it waits for a server."""
        if self._health_port is not None:
            port = self._health_port
            self._child.wait_until(
                lambda: is_healthy(port, READY_PATH),
                PATIENCE_S,
                is_waiting=lambda: is_healthy(port, LIVE_PATH),
            )

    def wait_until_done(self) -> None:
        """For a command that ends. Raises `EngineError` with why, where it failed."""
        self._child.wait_until(lambda: self._child.exit_code == 0, PATIENCE_S)

    def stop(self) -> None:
        self._child.stop(STOP_S)

    def _new_child(self) -> ChildProcess:
        name = "-".join(self._arguments)
        return ChildProcess(
            f"`metering {' '.join(self._arguments)}`",
            self._data_dir.log(name),
            die_with_parent=True,
        )


def is_healthy(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=PROBE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


Say = Callable[[str], None]
