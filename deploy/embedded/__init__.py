"""The engines as child processes: real Apache Kafka, and ClickHouse through chdb.

Lives here: one wrapper per engine with the same verbs (`start`, `stop`, `kill`, `pid`), so that
`metering up`, `metering verify` and the tests handle both alike.
Rules: engines listen on 127.0.0.1 only; a data directory belongs to one engine process at a time;
whatever was acknowledged survives `kill -9`.
Beside them are stand-ins for those who are paid, with the same verbs: `stripe/` and `partner/`.
"""

from deploy.embedded.child import EngineError
from deploy.embedded.clickhouse import EmbeddedClickHouse
from deploy.embedded.kafka import EmbeddedKafka

__all__ = ["EmbeddedClickHouse", "EmbeddedKafka", "EngineError"]
