"""The embedded ClickHouse answers as a server does, through the client that production uses."""

import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import clickhouse_connect
import lz4.frame
import psutil
import pytest
import zstandard
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from deploy.embedded import EmbeddedClickHouse
from deploy.embedded.clickhouse import User

ROWS = b'{"id":1,"at":"2026-11-01T12:00:00.123Z"}\n{"id":2,"at":"2026-11-02 00:00:00"}\n'


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    engine = EmbeddedClickHouse(
        tmp_path_factory.mktemp("engine"),
        arguments=("--readonly-seconds-max", "1", "--body-bytes-max", "2000000"),
    )
    engine.start()
    yield engine
    engine.kill()


def _client(engine: EmbeddedClickHouse, user: User, database: str | None = None) -> Client:
    return clickhouse_connect.get_client(
        host="127.0.0.1",
        port=engine.port,
        username=user.name,
        password=user.password,
        database=database or "__default__",
    )


def _create_table(client: Client) -> None:
    client.command("CREATE DATABASE IF NOT EXISTS metering")
    client.command(
        "CREATE OR REPLACE TABLE metering.events (id Int64, at DateTime64(3, 'UTC'))"
        " ENGINE = MergeTree ORDER BY id"
    )


@pytest.fixture
def writer(engine: EmbeddedClickHouse) -> Iterator[Client]:
    client = _client(engine, engine.writer)
    _create_table(client)
    yield client
    client.close()


@pytest.fixture
def finance(engine: EmbeddedClickHouse, writer: Client) -> Iterator[Client]:
    client = _client(engine, engine.reader, "metering")
    yield client
    client.close()


def _insert_json(client: Client, rows: bytes, **settings: str) -> None:
    client.raw_insert(
        "metering.events",
        ["id", "at"],
        insert_block=rows,
        fmt="JSONEachRow",
        settings={"date_time_input_format": "best_effort", "async_insert": "0", **settings},
    )


def _count(client: Client) -> int:
    return int(client.query("SELECT count() FROM metering.events").result_rows[0][0])


def _request(
    engine: EmbeddedClickHouse, user: User, sql: str, body: bytes = b"", encoding: str = ""
) -> tuple[int, str | None, bytes]:
    """Status, error code and body of a plain request, as curl would send it."""
    connection = HTTPConnection("127.0.0.1", engine.port, timeout=30)
    headers = {"X-ClickHouse-User": user.name, "X-ClickHouse-Key": user.password}
    if encoding:
        headers["Content-Encoding"] = encoding
    url = "/?query=" + "".join(f"%{byte:02x}" for byte in sql.encode())
    connection.request("POST", url, body, headers)
    answer = connection.getresponse()
    answered = answer.read()
    connection.close()
    return answer.status, answer.getheader("X-ClickHouse-Exception-Code"), answered


def test_rows_inserted_by_column_come_back(writer: Client) -> None:
    writer.insert("metering.events", [[7, 0], [8, 0]], column_names=["id", "at"])
    result = writer.query(
        "SELECT id FROM metering.events WHERE id > {least:Int64} ORDER BY id",
        parameters={"least": 7},
    )
    assert (result.column_names, result.result_rows) == (("id",), [(8,)])


def test_json_rows_go_in_unchanged(writer: Client) -> None:
    _insert_json(writer, ROWS)
    rows = writer.query("SELECT id, toString(at) FROM metering.events ORDER BY id").result_rows
    assert rows == [(1, "2026-11-01 12:00:00.123"), (2, "2026-11-02 00:00:00.000")]


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("lz4", lz4.frame.compress),
        ("zstd", zstandard.compress),
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
    ],
)
def test_compressed_bodies(
    engine: EmbeddedClickHouse,
    writer: Client,
    encoding: str,
    compress: Callable[[bytes], bytes],
) -> None:
    insert = "INSERT INTO metering.events (id) FORMAT JSONEachRow"
    body = compress(b'{"id":1}\n')
    assert _request(engine, engine.writer, insert, body, encoding)[0] == 200
    assert _count(writer) == 1
    status, code, _ = _request(engine, engine.writer, insert, body[:-3], encoding)
    assert (status, code) == (500, "271")
    too_long = compress(b'{"id":1}\n' * 1_000_000)
    assert _request(engine, engine.writer, insert, too_long, encoding)[:2] == (413, "307")
    assert _count(writer) == 1


@pytest.mark.parametrize("compress", [lz4.frame.compress, zstandard.compress], ids=["lz4", "zstd"])
def test_several_frames_in_one_body(
    engine: EmbeddedClickHouse, writer: Client, compress: Callable[[bytes], bytes]
) -> None:
    body = compress(b'{"id":1}\n') + compress(b'{"id":2}\n' * 5_000) + compress(b'{"id":3}\n')
    encoding = "lz4" if compress is lz4.frame.compress else "zstd"
    insert = "INSERT INTO metering.events (id) FORMAT JSONEachRow"
    assert _request(engine, engine.writer, insert, body, encoding)[0] == 200
    assert _count(writer) == 5_002


def test_a_bad_row_inserts_nothing(writer: Client) -> None:
    with pytest.raises(DatabaseError, match="code: 27"):
        _insert_json(writer, ROWS + b'{"id":"three","at":"2026-11-03 00:00:00"}\n')
    assert _count(writer) == 0


def test_an_empty_result_has_its_columns(writer: Client) -> None:
    result = writer.query(
        "SELECT id, at FROM metering.events WHERE id < 0 SETTINGS max_threads = 1"
    )
    assert (result.column_names, result.result_rows) == (("id", "at"), [])
    assert [kind.name for kind in result.column_types] == ["Int64", "DateTime64(3, 'UTC')"]


def test_a_long_result_is_streamed(writer: Client) -> None:
    with writer.query_row_block_stream("SELECT number FROM numbers(300000)") as blocks:
        assert sum(len(block) for block in blocks) == 300_000


def test_an_error_in_the_middle_of_a_stream_reaches_the_client(writer: Client) -> None:
    with pytest.raises(DatabaseError, match="too big"):
        writer.query(
            "SELECT throwIf(number = 299999, 'too big') FROM numbers(300000)",
            settings={"max_block_size": 1000},
        )


def test_settings_of_one_request_do_not_leak_into_the_next(writer: Client) -> None:
    sql = "SELECT value FROM system.settings WHERE name = 'max_threads'"
    assert writer.query(sql, settings={"max_threads": 3}).result_rows == [("3",)]
    assert writer.query(sql).result_rows != [("3",)]


def test_the_time_zone_is_utc(writer: Client) -> None:
    assert writer.query("SELECT timezone()").result_rows == [("UTC",)]


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1", 400, "62"),
        ("SELECT * FROM metering.missing", 404, "60"),
        ("SELECT missing FROM metering.events", 404, "47"),
        ("SELECT * FROM nowhere.events", 404, "81"),
        ("SELECT 1; SELECT 2", 400, "62"),
        ("", 400, "62"),
        ("CREATE TABLE default.t (x Int8) ENGINE = MergeTree ORDER BY x", 500, "79"),
    ],
)
def test_error_codes_are_those_of_a_server(
    engine: EmbeddedClickHouse, writer: Client, sql: str, status: int, code: str
) -> None:
    assert _request(engine, engine.writer, sql)[:2] == (status, code)


def test_an_unknown_setting_is_refused(engine: EmbeddedClickHouse, writer: Client) -> None:
    connection = HTTPConnection("127.0.0.1", engine.port)
    user = engine.writer
    connection.request(
        "POST", f"/?user={user.name}&password={user.password}&no_such_setting=1", b"SELECT 1"
    )
    answer = connection.getresponse()
    assert answer.getheader("X-ClickHouse-Exception-Code") == "115"
    connection.close()


def test_wrong_passwords_and_unknown_users_look_alike(engine: EmbeddedClickHouse) -> None:
    for name, password in (
        (engine.writer.name, "wrong"),
        (engine.writer.name, ""),
        ("nobody", ""),
        ("default", ""),
    ):
        status, code, text = _request(engine, User(name, password, False), "SELECT 1")
        assert (status, code) == (403, "516")
        assert text.decode().startswith(f"Code: 516. DB::Exception: {name}: Authentication failed")


def test_passwords_are_not_among_the_arguments(engine: EmbeddedClickHouse) -> None:
    arguments = " ".join(psutil.Process(engine.pid).cmdline())
    assert engine.writer.password not in arguments
    assert engine.reader.password not in arguments
    assert (engine.directory / "users.json").stat().st_mode & 0o077 == 0


def test_a_get_does_not_modify(engine: EmbeddedClickHouse, writer: Client) -> None:
    connection = HTTPConnection("127.0.0.1", engine.port)
    user = engine.writer
    credentials = f"user={user.name}&password={user.password}"
    connection.request("GET", f"/?{credentials}&query=DROP%20TABLE%20metering.events")
    answer = connection.getresponse()
    assert (answer.status, answer.read()[:9]) == (403, b"Code: 164")
    connection.close()


def test_finance_reads(writer: Client, finance: Client) -> None:
    _insert_json(writer, ROWS)
    assert finance.query("SELECT count(), max(id) FROM events").result_rows == [(2, 2)]
    assert finance.query_arrow("SELECT id FROM events").num_rows == 2
    assert "metering" in finance.command("SHOW DATABASES")


def test_a_statement_of_finance_is_cut_off_in_time(engine: EmbeddedClickHouse) -> None:
    started = time.monotonic()
    endless = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"
    assert _request(engine, engine.reader, endless)[:2] == (408, "159")
    assert time.monotonic() - started < 10


def test_acknowledged_inserts_survive_kill_and_restart(tmp_path: Path) -> None:
    engine = EmbeddedClickHouse(tmp_path)
    try:
        for round_number in range(3):
            engine.start()
            client = _client(engine, engine.writer)
            if round_number == 0:
                _create_table(client)
            for insert_number in range(20):
                row = {"id": round_number * 20 + insert_number, "at": "2026-11-01 00:00:00"}
                _insert_json(client, json.dumps(row).encode() + b"\n")
            client.close()
            engine.kill()
        engine.start()
        client = _client(engine, engine.reader, "metering")
        rows = client.query("SELECT count(), uniqExact(id), max(id) FROM events").result_rows
        assert rows == [(60, 60, 59)]
        client.close()
    finally:
        engine.kill()


def test_passwords_stay_the_same_after_a_restart(tmp_path: Path) -> None:
    first, second = EmbeddedClickHouse(tmp_path), EmbeddedClickHouse(tmp_path)
    assert (first.writer, first.reader) == (second.writer, second.reader)
    assert first.writer.password != first.reader.password
