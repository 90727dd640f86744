"""PostgreSQL from the distribution's package, as a child process on its own directory and port."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def binaries() -> Path | None:
    """Where the newest installed server is; None where there is none."""
    programs = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: path.parts[4]
    )
    if programs:
        return programs[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def running() -> Iterator[str]:
    """A server until the block ends; yields the URL of its maintenance database."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (package `postgresql`)")
    directory = Path(tempfile.mkdtemp(prefix="metering-postgresql-"))
    # The server refuses to run as root, so root lends it a user of its own.
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
    cluster, port = directory / "cluster", _free_port()
    with (directory / "log").open("wb") as log:
        subprocess.run(
            [
                programs / "initdb",
                "-D",
                cluster,
                "-U",
                "metering",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "-N",
            ],
            check=True,
            user=user,
            cwd=directory,
            stdout=log,
            stderr=log,
        )
        server = subprocess.Popen(
            [
                programs / "postgres",
                *f"-D {cluster} -h 127.0.0.1 -p {port} -k {directory} -c fsync=off".split(),
            ],
            user=user,
            cwd=directory,
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(200):
            ready = subprocess.run(
                [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False
            )
            if ready.returncode == 0:
                break
            server.poll()
            assert server.returncode is None, (directory / "log").read_text()
        yield f"postgresql://metering@127.0.0.1:{port}/postgres"
    finally:
        # At once, without a checkpoint, which may take long on a busy machine: it all goes.
        server.send_signal(signal.SIGQUIT)
        server.wait(60)
        shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
