"""The embedded ClickHouse as a child process, with the same verbs as the embedded Kafka."""

import os
import secrets
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from deploy.embedded.child import ChildProcess
from deploy.embedded.clickhouse.confinement import NOT_CONFINED, landlock_version
from deploy.embedded.clickhouse.users import User, Users, users_from_file, write_users_file
from deploy.embedded.ports import free_port

PROJECT_ROOT = Path(__file__).resolve().parents[3]
WRITER = "metering"
READER = "finance"
# The engine needs no more than these of our own environment.
PASSED_VARIABLES = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH")
START_PATIENCE_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 20.0
PING_TIMEOUT_SECONDS = 1.0


class EmbeddedClickHouse:
    """One engine on one data directory; `start`, `stop` and `kill` may follow each other freely.

    Passwords are made on first use and kept in the data directory, so that what finance has saved
    still works after a restart.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        arguments: tuple[str, ...] = (),
        die_with_parent: bool = True,
    ) -> None:
        self.directory = data_dir.resolve() / "clickhouse"
        self.port = free_port() if port is None else port
        self._arguments = arguments
        self._users: Users | None = None
        self._child = ChildProcess(
            "ClickHouse", self.directory / "clickhouse.out", die_with_parent=die_with_parent
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The engine's pid, or None when it does not run."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    @property
    def exit_code(self) -> int | None:
        """How the last process ended (negative: by which signal); None while it runs."""
        return self._child.exit_code

    def why(self) -> str:
        """What it said went wrong since its last start, on one line; may be empty."""
        return self._child.why()

    @property
    def notice(self) -> str:
        """What is to be said once to whoever starts it on this machine; empty as a rule."""
        return "" if landlock_version() else NOT_CONFINED

    @property
    def writer(self) -> User:
        """May do everything; for the sink, the migrations and the control plane."""
        return self._stored_users()[WRITER]

    @property
    def reader(self) -> User:
        """Read-only `finance`, for reports and people."""
        return self._stored_users()[READER]

    def start(self, patience_seconds: float = START_PATIENCE_SECONDS) -> None:
        """Return once it answers; raise `EngineError` with why it does not when it ended, or makes
        no progress for so long."""
        self._stored_users()
        command = [
            sys.executable,
            "-m",
            "deploy.embedded.clickhouse",
            "--path",
            str(self.directory / "store"),
            "--port",
            str(self.port),
            "--users",
            str(self._users_file),
            *self._arguments,
        ]
        self._child.start(command, _environment())
        self._child.wait_until(self._answers, patience_seconds)

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Let running statements end and close the store; kill it when that takes longer."""
        self._child.stop(timeout_seconds)

    def kill(self) -> None:
        """`kill -9`: every acknowledged insert is there after the next start."""
        self._child.kill()

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PING_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    @property
    def _users_file(self) -> Path:
        return self.directory / "users.json"

    def _stored_users(self) -> Users:
        if self._users is None:
            if not self._users_file.exists():
                self.directory.mkdir(parents=True, exist_ok=True)
                write_users_file(self._users_file, _new_users())
            self._users = users_from_file(self._users_file)
        return self._users


def _environment() -> dict[str, str]:
    """By name, not all but ours: what is read from the engine must tell no secret of this
    process, whoever's it is."""
    passed = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    return {**passed, "PYTHONPATH": str(PROJECT_ROOT), "TZ": "UTC"}


def _new_users() -> Users:
    return {
        name: User(name, secrets.token_urlsafe(18), is_readonly)
        for name, is_readonly in ((WRITER, False), (READER, True))
    }
