"""Kafka to ClickHouse: every record of four topics becomes a row, at least once sent, once counted.

Lives here: blocks, inserts, the consumer group, its metrics and health; `run` is the process.
May import: `schemas`, `warehouse`, `streams.kafka`, `streams.health`, aiokafka, aiohttp. Never:
Faust, the pipeline's decisions, `api`; nor a change to a value on its way.

Rules: offsets are committed only after ClickHouse acknowledged their rows; sending again is
harmless because a row's key comes from the record alone; nothing is skipped in silence.
"""

from sinks.errors import PositionLostError, SinkError
from sinks.process import run

__all__ = ["PositionLostError", "SinkError", "run"]
