"""The front on its port until SIGTERM or SIGINT. Imported once the process is confined."""

import argparse
import asyncio
import os
import signal
from dataclasses import replace

import uvloop
from aiohttp import web

from deploy.embedded.clickhouse.engine import Engine
from deploy.embedded.clickhouse.front import LINE_BYTES_MAX, Front
from deploy.embedded.clickhouse.lanes import READER_LIMITS, WRITER_LIMITS
from deploy.embedded.clickhouse.readonly_settings import ReaderLimits
from deploy.embedded.clickhouse.users import Users

# Statements that still run at the end are waited for this long.
SHUTDOWN_SECONDS = 10.0


def serve(arguments: argparse.Namespace, users: Users) -> None:
    """Blocks until a signal comes; statements that run then are ended first."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(arguments, users))


async def _serve(arguments: argparse.Namespace, users: Users) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    processors = os.cpu_count() or 1
    statement = ReaderLimits(
        seconds=arguments.readonly_seconds_max,
        threads=max(1, processors // 2),
        threads_at_most=processors,
    )
    engine = Engine(arguments.path, statement)
    front = Front(
        engine,
        users,
        replace(WRITER_LIMITS, body_bytes=arguments.body_bytes_max),
        replace(READER_LIMITS, statements=arguments.readonly_statements_max),
    )
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
