"""Logging of every process, set up in one place: structlog, for people or as JSON lines.

Everything goes to stderr. What libraries log through the standard library comes out in the same
form. Clients that tell of each retry are quiet: what matters of it we log ourselves, once.
"""

import logging
import sys
from typing import Final, Literal

import structlog
from structlog.typing import Processor

QUIET: Final = (
    "faust",
    "mode",
    "asyncio",
    "urllib3",
    "clickhouse_connect",
    "aiohttp",
    "alembic",
    # Faust logs a service's coming and going under the module of its class.
    "streams.exactly_once.transport",
    "streams.exactly_once.faust_settings",
)


def set_up_logging(log_format: Literal["console", "json"], level: str) -> None:
    """Idempotent. Libraries show warnings only, errors only where warnings are their daily bread;
    at level `debug` everything is shown."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=_rendering(log_format)
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    is_debug = level == "debug"
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG if is_debug else logging.WARNING)
    # aiokafka logs every retry as a warning or an error: dozens a second in a healthy pipeline,
    # hundreds while a broker is down. What ends a process reaches us as an exception.
    logging.getLogger("aiokafka").setLevel(logging.DEBUG if is_debug else logging.CRITICAL)


def _rendering(log_format: str) -> list[Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if log_format == "json":
        return [
            strip,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    return [strip, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
