"""Logging of every process, set up in one place: structlog, for people or as JSON lines.

Everything goes to stderr. What libraries log through the standard library comes out in the same
form. Clients that tell of each retry are quiet: what matters of it we log ourselves, once.
"""

import logging
import sys
from typing import Final, Literal

import structlog
from structlog.typing import Processor

QUIET: Final = ("aiokafka", "faust", "mode", "asyncio", "urllib3", "clickhouse_connect", "aiohttp")


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
    # It warns of every retry, NotEnoughReplicas while markers are written among them: dozens a
    # second in a healthy pipeline.
    for name in ("aiokafka.producer.sender", "aiokafka.consumer.group_coordinator"):
        logging.getLogger(name).setLevel(logging.DEBUG if is_debug else logging.ERROR)


def _rendering(log_format: str) -> list[Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if log_format == "json":
        return [
            strip,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    return [strip, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
