"""`python -m deploy.embedded.clickhouse --path DIR --port N`: engine and front, one process.

Users come from `--users FILE` or from CLICKHOUSE_FRONT_USER, CLICKHOUSE_FRONT_PASSWORD and the
same two with READONLY_ after FRONT_. SIGTERM and SIGINT end it cleanly.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

# Nothing here may start a thread before the process is confined, so the engine comes after it.
from deploy.embedded.child import PROJECT_ROOT
from deploy.embedded.clickhouse.confinement import NOT_CONFINED, confine
from deploy.embedded.clickhouse.users import users_from_environment, users_from_file

# What is still imported after the process is confined; not the whole checkout, in which the data
# directory with its secrets may lie.
PACKAGES = (PROJECT_ROOT / "deploy",)


def main() -> None:
    arguments = _arguments()
    try:
        users = (
            users_from_file(arguments.users)
            if arguments.users
            else users_from_environment(os.environ)
        )
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"users: {error}") from None
    arguments.path = arguments.path.resolve()
    _make_scratch(arguments.path / "scratch")
    if not confine(arguments.path, arguments.port, PACKAGES):
        print(NOT_CONFINED, flush=True)  # noqa: T201 - for the file of this process's output
    # The engine takes its time zone from the host when it is loaded.
    os.environ["TZ"] = "UTC"
    time.tzset()
    from deploy.embedded.clickhouse.serving import serve

    serve(arguments, users)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.embedded.clickhouse")
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--users", type=Path)
    parser.add_argument("--body-bytes-max", type=int, default=256 * 1024 * 1024)
    parser.add_argument("--readonly-seconds-max", type=int, default=60)
    parser.add_argument("--readonly-statements-max", type=int, default=4)
    return parser.parse_args()


def _make_scratch(directory: Path) -> None:
    """Where the engine puts what it takes for temporary: inside of what it may write to."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(directory)


if __name__ == "__main__":
    main()
