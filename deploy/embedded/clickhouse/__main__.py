"""`python -m deploy.embedded.clickhouse --path DIR --port N`: engine and front, one process.

Users come from `--users FILE` or from CLICKHOUSE_FRONT_USER, CLICKHOUSE_FRONT_PASSWORD and the
same two with READONLY_ after FRONT_. SIGTERM and SIGINT end it cleanly.
"""

import argparse
import asyncio
import os
import signal
import time
from pathlib import Path

import uvloop

# The engine takes its time zone from the host when it is loaded.
os.environ["TZ"] = "UTC"
time.tzset()

from aiohttp import web  # noqa: E402 - after the time zone is set

from deploy.embedded.clickhouse.engine import Engine  # noqa: E402
from deploy.embedded.clickhouse.front import LINE_BYTES_MAX, Front, Limits  # noqa: E402
from deploy.embedded.clickhouse.users import (  # noqa: E402
    Users,
    users_from_environment,
    users_from_file,
)

# Statements that still run at the end are waited for this long.
SHUTDOWN_SECONDS = 10.0


def main() -> None:
    defaults = Limits()
    parser = argparse.ArgumentParser(prog="python -m deploy.embedded.clickhouse")
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--users", type=Path)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--requests-max", type=int, default=defaults.requests_max)
    parser.add_argument("--body-bytes-max", type=int, default=defaults.body_bytes_max)
    parser.add_argument("--readonly-seconds-max", type=int, default=30)
    parser.add_argument("--readonly-memory-bytes-max", type=int, default=2 * 1024**3)
    arguments = parser.parse_args()
    try:
        users = (
            users_from_file(arguments.users)
            if arguments.users
            else users_from_environment(os.environ)
        )
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"users: {error}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(arguments, users))


async def _serve(arguments: argparse.Namespace, users: Users) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    readonly_settings = {
        "max_execution_time": str(arguments.readonly_seconds_max),
        "max_memory_usage": str(arguments.readonly_memory_bytes_max),
    }
    arguments.path.mkdir(parents=True, exist_ok=True)
    engine = Engine(arguments.path, readonly_settings)
    limits = Limits(arguments.threads, arguments.requests_max, arguments.body_bytes_max)
    front = Front(engine, users, limits)
    runner = web.AppRunner(
        front.application(),
        access_log=None,
        auto_decompress=False,
        max_line_size=LINE_BYTES_MAX,
        max_field_size=LINE_BYTES_MAX,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, arguments.host, arguments.port).start()
        await stopping.wait()
    finally:
        await runner.cleanup()
        front.close()
        engine.close()


if __name__ == "__main__":
    main()
