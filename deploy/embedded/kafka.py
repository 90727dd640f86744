"""Real Apache Kafka (KRaft, one combined node) as a child process.

Lives here: the broker's configuration for one machine, its formatting, start, stop and kill.
Rules: 127.0.0.1 only; nothing is shared between data directories; a broker killed with `kill -9`
starts again on the same directory and port with every acknowledged record.
"""

import base64
import os
import secrets
import shutil
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from deploy.embedded.child import ChildProcess
from deploy.embedded.java import DEFAULT_JARS, find_java, kafka_classpath
from deploy.embedded.ports import free_port

NODE_ID = 1
LOG4J_CONFIGURATION = Path(__file__).with_name("log4j2.properties")
START_PATIENCE_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 20.0
PROBE_TIMEOUT_SECONDS = 2.0

BROKER_SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": str(NODE_ID),
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "BROKER",
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # Topics are created by `metering topics create`, with the partition count that binds all of
    # them: a topic made by accident would have another.
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "transaction.max.timeout.ms": "900000",
    # A worker that was killed must be noticed and replaced within seconds.
    "group.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    # After `kill -9` the controller refuses the new broker until the old one's session ends: 9 s
    # by default. A stall longer than this fences the broker, which clients ride out by retrying.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "300",
    # Expired transactions of killed workers hold back read_committed readers until noticed.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # One lane commits at a time, so waiting for further offset commits to batch only adds 5 ms to
    # every transaction.
    "group.coordinator.append.linger.ms": "0",
    # Retention and compaction show within seconds, which tests need and nobody minds.
    "log.retention.check.interval.ms": "10000",
    "log.initial.task.delay.ms": "1000",
    # Empty records of the controller, for brokers of a cluster: here they only keep an idle machine
    # at work.
    "metadata.max.idle.interval.ms": "10000",
    "log.segment.delete.delay.ms": "1000",
    # Every idle thread looks for work several times a second; so many do the work of two cores.
    "num.network.threads": "2",
    "num.io.threads": "3",
    "background.threads": "2",
    "group.coordinator.threads": "1",
    "share.coordinator.threads": "1",
    # The default (128 MB) would be a quarter of the heap; 16 MB compacts 600,000 keys a pass.
    "log.cleaner.dedupe.buffer.size": "16777216",
    "num.recovery.threads.per.data.dir": "2",
}


class EmbeddedKafka:
    """One broker on one data directory; `start`, `stop` and `kill` may follow each other freely.

    `settings` are further broker settings, which win over ours. `heap_mib_max` bounds the heap,
    not the process: page cache and JVM add about 250 MiB.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        heap_mib_min: int = 256,
        heap_mib_max: int = 512,
        jars: Path = DEFAULT_JARS,
        die_with_parent: bool = True,
    ) -> None:
        self.directory = data_dir.resolve() / "kafka"
        self.port = free_port() if port is None else port
        self.log_file = self.directory / "kafka.log"
        self._controller_port = free_port()
        self._settings = dict(settings or {})
        self._heap = (f"-Xms{heap_mib_min}m", f"-Xmx{heap_mib_max}m")
        self._jars = jars
        self._child = ChildProcess(
            "Kafka",
            self.directory / "kafka.out",
            die_with_parent=die_with_parent,
            logs=[self.log_file],
        )

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's pid, or None when it does not run."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    @property
    def exit_code(self) -> int | None:
        """How the last broker process ended (negative: by which signal); None while it runs."""
        return self._child.exit_code

    def why(self) -> str:
        """What it said went wrong since its last start, on one line; may be empty."""
        return self._child.why()

    @property
    def cluster_id(self) -> str:
        """Made on first use and kept in the data directory."""
        id_file = self.directory / "cluster-id"
        if not id_file.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            id_file.write_text(_new_cluster_id())
        return id_file.read_text()

    def start(self, patience_seconds: float = START_PATIENCE_SECONDS) -> None:
        """Return once the broker serves requests; raise `EngineError` with why it does not when it
        ended, or makes no progress for so long."""
        java, classpath = find_java(), kafka_classpath(self._jars)
        properties = self._write_properties()
        self._format_once(java, classpath, properties)
        command = [
            java,
            *self._heap,
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={LOG4J_CONFIGURATION}",
            f"-Dmetering.kafka.log={self.log_file}",
            "-cp",
            classpath,
            "kafka.Kafka",
            str(properties),
        ]
        self._child.start(command, os.environ)
        self._child.wait_until(lambda: _serves_requests(self.port), patience_seconds)

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Shut the broker down cleanly; kill it when that takes longer than the time given."""
        self._child.stop(timeout_seconds)

    def kill(self) -> None:
        """`kill -9`: the next start recovers the logs."""
        self._child.kill()

    def _write_properties(self) -> Path:
        broker, controller = self.bootstrap, f"127.0.0.1:{self._controller_port}"
        listeners = f"BROKER://{broker},CONTROLLER://{controller}"
        lines = {
            **BROKER_SETTINGS,
            "log.dirs": str(self.directory / "logs"),
            "listeners": listeners,
            "advertised.listeners": f"BROKER://{broker}",
            "controller.quorum.voters": f"{NODE_ID}@{controller}",
            **self._settings,
        }
        properties = self.directory / "server.properties"
        self.directory.mkdir(parents=True, exist_ok=True)
        properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return properties

    def _format_once(self, java: str, classpath: str, properties: Path) -> None:
        """Format the storage on first use; one that was interrupted is done again from nothing."""
        formatted = self.directory / "formatted"
        if formatted.exists():
            return
        shutil.rmtree(self.directory / "logs", ignore_errors=True)
        command = [
            java,
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={LOG4J_CONFIGURATION}",
            f"-Dmetering.kafka.log={self.log_file}",
            "-cp",
            classpath,
            "kafka.tools.StorageTool",
            "format",
            "--config",
            str(properties),
            "--cluster-id",
            self.cluster_id,
        ]
        tool = ChildProcess(
            "Formatting Kafka's storage", self.directory / "format.out", die_with_parent=True
        )
        tool.start(command, os.environ)
        try:
            tool.wait_until(lambda: tool.exit_code == 0, START_PATIENCE_SECONDS)
        finally:
            tool.kill()
        formatted.touch()


def _new_cluster_id() -> str:
    while True:
        identifier = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
        # Kafka's command line would take a leading hyphen for an option.
        if not identifier.startswith("-"):
            return identifier


def _serves_requests(port: int) -> bool:
    """Whether the broker is registered and unfenced: it then lists itself in the metadata.

    An open port is not enough: the listener opens before the broker may lead partitions.
    """
    metadata_api, version, correlation_id, no_client_id, no_topics = 3, 1, 1, -1, 0
    body = struct.pack(">hhihi", metadata_api, version, correlation_id, no_client_id, no_topics)
    try:
        with socket.create_connection(("127.0.0.1", port), PROBE_TIMEOUT_SECONDS) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            head = _receive(connection, 12)
    except OSError:
        return False
    _, answered_id, brokers = struct.unpack(">iii", head)
    return bool(answered_id == correlation_id and brokers > 0)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise ConnectionResetError("closed before the answer was complete")
        received += piece
    return received
