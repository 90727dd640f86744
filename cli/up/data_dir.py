"""The data directory of `up`: whose it is now, its ports, its secrets, and where others find it.

Rules: one `up` at a time (a lock that ends with the process, `kill -9` included); ports and secrets
are chosen at first use and kept; what holds secrets is readable by its owner alone.
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from cli.configuration import UP_FILE, UP_LOCK
from cli.errors import Failure
from deploy.embedded.ports import free_port, is_free

CHOSEN_BY: Final = {
    "kafka": "--kafka-port",
    "clickhouse": "--clickhouse-port",
    "stripe": "--stripe-port",
    "worker_metrics": "METERING_METRICS_PORT",
    "sink_metrics": "METERING_SINK_METRICS_PORT",
    "api": "METERING_API_PORT",
}
"""Each port that is needed, by name, and what chooses it."""
PORTS: Final = tuple(CHOSEN_BY)
ALIAS_SECRET_BYTES: Final = 32
FULL_BYTES: Final = 1 << 20
"""Who needs more than is free cannot write, though some bytes are left."""
SECRETS_FILE: Final = "secrets.json"


class DataDirectory:
    """Made on first use. `lock` first; the rest assumes that it is ours."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: IO[str] | None = None

    def lock(self) -> None:
        """Make it ours until this process ends. Raises `Failure` naming who has it."""
        try:
            # Addresses and keys are in it.
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.path / UP_LOCK).open("a+")
        except OSError as error:
            raise Failure(f"{self.path} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise Failure(
                f"`metering up` is running on {self.path} already (pid {holder}): stop it, or "
                "choose another --data-dir"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def unlock(self) -> None:
        """Let the next one in; what runs here must have stopped."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def ports(self, configured: Mapping[str, int | None]) -> tuple[dict[str, int], list[str]]:
        """A port for each of `PORTS`, and a sentence for each kept one that had to change.

        Raises `Failure` when a configured one is taken.
        """
        former = self._read("ports.json")
        ports: dict[str, int] = {}
        changes = []
        for name in PORTS:
            port = configured.get(name)
            if port is not None:
                if not is_free(port):
                    raise Failure(f"port {port} is taken: {CHOSEN_BY[name]} chooses another")
                ports[name] = port
                continue
            last = former.get(name)
            if isinstance(last, int) and last not in ports.values() and is_free(last):
                ports[name] = last
                continue
            ports[name] = _another_port(set(ports.values()))
            if last is not None:
                changes.append(f"port {last} ({name}) is taken now; using {ports[name]}")
        self.write("ports.json", json.dumps(ports, indent=2) + "\n")
        return ports, changes

    def alias_secret(self) -> str:
        """Made once: aliases that were hashed with it must resolve for ever."""
        secret = self.secret("alias_secret")
        if not secret:
            secret = secrets.token_urlsafe(ALIAS_SECRET_BYTES)
            self.keep_secret("alias_secret", secret)
        return secret

    def secret(self, name: str) -> str:
        """A kept secret; empty where there is none of this name."""
        return str(self._read(SECRETS_FILE).get(name, ""))

    def keep_secret(self, name: str, value: str) -> None:
        """It is on disk when this returns."""
        all_secrets = self._read(SECRETS_FILE) | {name: value}
        self.write(SECRETS_FILE, json.dumps(all_secrets, indent=2) + "\n")

    def write_settings(self, environment: Mapping[str, str]) -> Path:
        """For other commands (`cli.configuration`), and for `.` in a shell.

        Both must read the same, which they do in single quotes. Raises `Failure` for what they
        would read differently.
        """
        for name, value in environment.items():
            if "'" in value or "${" in value or "\\" in value:
                raise Failure(f"{name} holds a quote, backslash or ${{: `up` cannot pass it on")
        lines = [f"{name}='{value}'" for name, value in sorted(environment.items())]
        return self.write(UP_FILE, "\n".join(lines) + "\n")

    def shortage(self) -> str:
        """That its disk is full, as a clause; empty where there is room."""
        free = shutil.disk_usage(self.path).free
        return f"the disk of {self.path} is full: make room" if free < FULL_BYTES else ""

    def log(self, name: str) -> Path:
        """Where a part's output goes; that of its former run is kept beside it."""
        current = self.path / "logs" / f"{name}.log"
        if current.exists():
            current.replace(current.with_suffix(".log.1"))
        return current

    def _read(self, name: str) -> dict[str, object]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise Failure(f"{self.path / name} is damaged ({error}): mend or remove it") from None
        return dict(content)

    def write(self, name: str, text: str) -> Path:
        """Whole or not at all, and never readable by others, not even for a moment."""
        path, fresh = self.path / name, self.path / f"{name}.new"
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        return path


def _another_port(taken: set[int]) -> int:
    while (port := free_port()) in taken:
        pass
    return port
