"""The embedded broker is a real one: it keeps what it acknowledged, through stop and `kill -9`."""

import asyncio
import socket
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from deploy.embedded import EmbeddedKafka, EngineError
from deploy.embedded.java import DEFAULT_JARS, kafka_classpath, locked_jars

PARTITION = TopicPartition("usage", 0)


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    kafka = EmbeddedKafka(tmp_path)
    kafka.start()
    yield kafka
    kafka.kill()


async def _create(kafka: EmbeddedKafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(PARTITION.topic, 1, 1)])
    finally:
        await admin.close()


async def _write(kafka: EmbeddedKafka, values: list[bytes], transactional_id: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, transactional_id=transactional_id
    )
    await producer.start()
    try:
        async with producer.transaction():
            for value in values:
                await producer.send(PARTITION.topic, value, partition=PARTITION.partition)
    finally:
        await producer.stop()


async def _read(kafka: EmbeddedKafka, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, isolation_level="read_committed")
    await consumer.start()
    try:
        consumer.assign([PARTITION])
        await consumer.seek_to_beginning(PARTITION)
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


def test_acknowledged_records_survive_stop_and_kill(kafka: EmbeddedKafka) -> None:
    bootstrap, cluster_id = kafka.bootstrap, kafka.cluster_id
    asyncio.run(_create(kafka))
    asyncio.run(_write(kafka, [b"1", b"2"], "one"))
    kafka.stop()
    kafka.start()
    asyncio.run(_write(kafka, [b"3"], "one"))
    kafka.kill()
    kafka.start()
    asyncio.run(_write(kafka, [b"4"], "two"))
    assert asyncio.run(_read(kafka, 4)) == [b"1", b"2", b"3", b"4"]
    assert (kafka.bootstrap, kafka.cluster_id) == (bootstrap, cluster_id)


def test_topics_are_never_made_by_accident(kafka: EmbeddedKafka) -> None:
    async def write_to_no_topic() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, request_timeout_ms=1_000)
        await producer.start()
        try:
            await producer.send_and_wait("usage-misspelt", b"1")
        finally:
            await producer.stop()

    with pytest.raises(UnknownTopicOrPartitionError):
        asyncio.run(write_to_no_topic())


def test_only_this_machine_can_connect(kafka: EmbeddedKafka) -> None:
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.Process(kafka.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_a_format_that_was_interrupted_is_done_again(tmp_path: Path) -> None:
    half = tmp_path / "kafka" / "logs"
    half.mkdir(parents=True)
    (half / "meta.properties").write_text("version=1\n")
    kafka = EmbeddedKafka(tmp_path)
    try:
        kafka.start()
        assert kafka.is_running
    finally:
        kafka.kill()


def test_a_taken_port_is_reported_as_the_cause(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        kafka = EmbeddedKafka(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(EngineError, match=r"Kafka ended .*Address already in use.*kafka\.out"):
            kafka.start()
        assert kafka.pid is None


def test_a_setting_of_the_caller_wins(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, settings={"offsets.topic.num.partitions": "3"})
    written = kafka._write_properties().read_text()
    assert written.count("offsets.topic.num.partitions") == 1
    assert "offsets.topic.num.partitions=3\n" in written


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A Maven repository with the jars of this checkout, and its address."""
    root = tmp_path / "repository"
    for path in locked_jars():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(DEFAULT_JARS / Path(path).name)
    handler = partial(SimpleHTTPRequestHandler, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield root, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_jars_come_without_maven_from_a_named_repository(
    repository: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka_classpath()  # those of this checkout, by Maven or as they are
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("MAVEN_REPOSITORY", repository[1])
    fetched = tmp_path / "jars"
    assert kafka_classpath(fetched) == f"{fetched}/*"
    names = {path.name for path in DEFAULT_JARS.glob("*.jar")}
    assert {path.name for path in fetched.glob("*.jar")} == names
    for name in names:
        assert (fetched / name).read_bytes() == (DEFAULT_JARS / name).read_bytes()


def test_a_jar_that_is_another_is_refused(
    repository: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAVEN_REPOSITORY", repository[1])
    path = next(iter(locked_jars()))
    (repository[0] / path).unlink()
    (repository[0] / path).write_bytes(b"something else")
    with pytest.raises(EngineError, match=r"is not the jar of jars\.lock"):
        kafka_classpath(tmp_path / "jars")
    assert list(tmp_path.glob("jars*")) == []
