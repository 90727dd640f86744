"""Finance on the embedded ClickHouse: what it may ask, and the ways around that were tried.

The statements are files of their own (`clickhouse/`), separated by lines of `====`. All go through
the real front to the real engine.
"""

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import chdb
import psutil
import pytest

from deploy.embedded import EmbeddedClickHouse
from deploy.embedded.clickhouse import process
from deploy.embedded.clickhouse.confinement import landlock_version
from deploy.embedded.clickhouse.readonly import COMBINATORS, FUNCTIONS, SYSTEM_TABLES
from tests.deploy.finance import ask, set_up

STATEMENTS = Path(__file__).with_name("clickhouse")
SECRET = "not for finance"
# READONLY, SYNTAX_ERROR, SETTING_CONSTRAINT_VIOLATION, and UNKNOWN_TABLE for names of files.
REFUSALS = {"164", "62", "452", "60"}
needs_landlock = pytest.mark.skipif(
    landlock_version() == 0, reason="this kernel cannot confine a process"
)


def _statements(name: str) -> list[str]:
    return (STATEMENTS / name).read_text().rstrip("\n").split("\n====\n")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    engine = EmbeddedClickHouse(
        tmp_path_factory.mktemp("engine"), arguments=("--readonly-statements-max", "1")
    )
    set_up(engine)
    yield engine
    engine.kill()


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "secret.csv"
    path.write_text(SECRET)
    return path


@pytest.mark.parametrize("sql", _statements("ordinary.txt"))
def test_ordinary_statements_run(engine: EmbeddedClickHouse, sql: str) -> None:
    status, _, text = ask(
        engine,
        engine.reader,
        sql,
        param_org="org",
        param_x="id",
        param_db="metering",
        param_t="t",
    )
    assert status == 200, text


@pytest.mark.parametrize("sql", _statements("bypasses.txt"))
def test_a_way_around_is_refused(
    engine: EmbeddedClickHouse, secret_file: Path, tmp_path: Path, sql: str
) -> None:
    written = tmp_path / "written"
    attack = sql.replace("{secret}", str(secret_file)).replace("{outfile}", str(written))
    status, code, text = ask(
        engine,
        engine.reader,
        attack,
        param_f="file",
        param_d="system",
        param_t="disks",
        param_q="system.disks",
        param_s=str(secret_file),
    )
    assert status >= 400
    assert code in REFUSALS, text
    assert SECRET.encode() not in text
    assert not written.exists()
    assert ask(engine, engine.writer, "SELECT count() FROM metering.t")[2] == b"10\n"


def test_what_runs_is_what_was_checked(engine: EmbeddedClickHouse) -> None:
    """`//` opens a comment for the engine, so this is one column and nothing is read."""
    answered = ask(engine, engine.reader, "SELECT 1 // 1 ', file('/etc/passwd') // '")
    assert answered == (200, None, b"1\n")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"database": "system"}, "164"),
        ({"readonly": "0"}, "164"),
        ({"max_execution_time": "0"}, "452"),
        ({"max_execution_time": "61"}, "452"),
        ({"max_memory_usage": "0"}, "452"),
        ({"max_threads": "1000"}, "452"),
        ({"format_schema": "/tmp/x:Row"}, "164"),
        ({"additional_result_filter": "1"}, "164"),
        ({"output_format_schema": "/tmp/x"}, "164"),
        ({"default_format": "dataframe"}, "73"),
        ({"no_such_setting": "1"}, "115"),
    ],
)
def test_parameters_that_do_more_than_show_are_refused(
    engine: EmbeddedClickHouse, parameters: dict[str, str], code: str
) -> None:
    assert ask(engine, engine.reader, "SELECT 1", **parameters)[1] == code


@pytest.mark.parametrize(
    "parameters",
    [
        {"readonly": "2"},
        {"max_execution_time": "10"},
        {"max_block_size": "65409"},
        {"join_use_nulls": "1"},
        {"session_timezone": "Europe/Berlin"},
        {"output_format_json_quote_64bit_integers": "1"},
        {"add_http_cors_header": "0"},
        {"enable_analyzer": "1"},
        {"query_id": "a\r\nb: c"},
        {"query_id": "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")},
    ],
)
def test_harmless_and_equal_parameters_are_taken(
    engine: EmbeddedClickHouse, parameters: dict[str, str]
) -> None:
    assert ask(engine, engine.reader, "SELECT 1", **parameters) == (200, None, b"1\n")


def test_the_database_may_be_named_in_a_header(engine: EmbeddedClickHouse) -> None:
    headers = {"X-ClickHouse-Database": "metering"}
    assert ask(engine, engine.reader, "SELECT count() FROM t", headers)[2] == b"10\n"
    headers = {"X-ClickHouse-Database": "system"}
    assert ask(engine, engine.reader, "SELECT count() FROM disks", headers)[1] == "164"


def test_a_statement_nested_too_deeply_is_its_own_refusal(engine: EmbeddedClickHouse) -> None:
    for opening, closing in (("abs(", ")"), ("[", "]"), ("(", ")")):
        sql = "SELECT " + opening * 900 + "1" + closing * 900
        assert ask(engine, engine.reader, sql)[1] in {"167", "306"}
    assert ask(engine, engine.reader, "SELECT 1")[0] == 200


def test_a_result_in_one_piece_is_limited_however_long_its_names_are(
    engine: EmbeddedClickHouse,
) -> None:
    """The engine counts no memory for it; what is streamed needs no limit."""
    for alias, rows in (("n", 1_000_000), ("n" * 100_000, 10_000)):
        sql = f"SELECT number AS {alias} FROM numbers({rows})"
        _, code, text = ask(engine, engine.reader, sql + " FORMAT JSON")
        assert code == "396", text[:200]
        _, code, _ = ask(engine, engine.reader, sql + " FORMAT JSON", max_result_rows="300000")
        assert code == "396"
    lines = ask(
        engine, engine.reader, f"SELECT 1 AS {'n' * 100_000} FROM numbers(10000) FORMAT JSONEachRow"
    )
    assert lines[1] == "396"
    more = "SELECT 1 FORMAT JSON SETTINGS max_result_rows = 100000000"
    assert ask(engine, engine.reader, more)[1] == "452"
    streamed = ask(engine, engine.reader, "SELECT number FROM numbers(1000000) FORMAT TSV")
    assert (streamed[0], streamed[2].count(b"\n")) == (200, 1_000_000)


def test_the_lists_name_what_the_engine_has() -> None:
    """A name that is gone may come back with another meaning."""
    connection = chdb.connect(":memory:")

    def names(sql: str) -> set[str]:
        return set(bytes(connection.query(sql, "TSVRaw").bytes()).decode().split())

    of_the_parser = {"countdistinct", "exists", "grouping", "lambda", "untuple"}
    assert FUNCTIONS - of_the_parser <= names("SELECT lower(name) FROM system.functions")
    tables = names("SELECT name FROM system.tables WHERE database = 'system'")
    assert tables >= SYSTEM_TABLES
    combinators = names("SELECT lower(name) FROM system.aggregate_function_combinators")
    assert combinators == COMBINATORS
    connection.close()


@needs_landlock
@pytest.mark.parametrize(
    "path",
    [
        "{secret}",
        "{directory}/users.json",
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/self/../{parent}/environ",
        "/etc/passwd",
    ],
)
def test_the_engine_reads_nothing_outside_its_directory(
    engine: EmbeddedClickHouse, secret_file: Path, path: str
) -> None:
    """Asked as the writer, whom no other check holds back."""
    real = path.format(secret=secret_file, directory=engine.directory, parent=psutil.Process().pid)
    status, code, text = ask(engine, engine.writer, f"SELECT file('{real}')")
    assert (status, code) == (500, "76"), text
    assert b"Permission denied" in text


@needs_landlock
def test_the_engine_writes_nothing_outside_its_directory(
    engine: EmbeddedClickHouse, tmp_path: Path
) -> None:
    written = tmp_path / "written"
    sql = f"INSERT INTO FUNCTION file('{written}', 'CSV', 'x Int8') SELECT 1"
    assert b"Permission denied" in ask(engine, engine.writer, sql)[2]
    assert not written.exists()


@needs_landlock
def test_the_engine_connects_to_nobody_and_starts_nothing(engine: EmbeddedClickHouse) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        sql = f"SELECT * FROM url('{url}', 'CSV', 'x String')"
        assert ask(engine, engine.writer, sql + " SETTINGS http_max_tries = 1")[0] >= 400
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert psutil.Process(engine.pid).children() == []


def test_a_kernel_that_cannot_confine_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EmbeddedClickHouse(tmp_path)
    assert (engine.notice == "") == (landlock_version() > 0)
    # No kernel without Landlock can be had here.
    monkeypatch.setattr(process, "landlock_version", lambda: 0)
    assert "no Landlock" in engine.notice


def test_the_engine_is_given_no_secrets_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERING_KAFKA_SECURITY_PASSWORD", SECRET)
    engine = EmbeddedClickHouse(tmp_path)
    engine.start()
    try:
        assert SECRET not in psutil.Process(engine.pid).environ().values()
    finally:
        engine.kill()


def test_finance_waits_for_finance_and_never_the_sink(engine: EmbeddedClickHouse) -> None:
    """One statement of finance at a time here; its result is not taken, so it lasts."""
    reader = engine.reader
    credentials = {"X-ClickHouse-User": reader.name, "X-ClickHouse-Key": reader.password}
    endless = HTTPConnection("127.0.0.1", engine.port)
    endless.request(
        "POST", "/", b"SELECT number FROM numbers(1000000000000) FORMAT TSV", credentials
    )
    answer = endless.getresponse()
    answered = []
    second = threading.Thread(
        target=lambda: answered.append(ask(engine, reader, "SELECT 1")), daemon=True
    )
    second.start()
    for _ in range(20):
        assert ask(engine, engine.writer, "SELECT 1")[0] == 200
    assert answered == []
    answer.close()
    endless.close()
    second.join()
    assert answered == [(200, None, b"1\n")]


def test_requests_of_finance_take_no_place_of_the_sinks(engine: EmbeddedClickHouse) -> None:
    reader = engine.reader
    held = []
    try:
        for _ in range(64):
            connection = HTTPConnection("127.0.0.1", engine.port)
            connection.putrequest("POST", "/")
            connection.putheader("X-ClickHouse-User", reader.name)
            connection.putheader("X-ClickHouse-Key", reader.password)
            connection.putheader("Content-Length", "1000")
            connection.endheaders(b"SELECT 1 --")
            held.append(connection)
        while ask(engine, reader, "SELECT 1")[1] != "202":
            pass
        assert ask(engine, engine.writer, "SELECT 1") == (200, None, b"1\n")
    finally:
        for connection in held:
            connection.close()


def test_a_statement_whose_client_left_does_not_take_its_turn(engine: EmbeddedClickHouse) -> None:
    endless = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"
    with socket.create_connection(("127.0.0.1", engine.port)) as running:
        running.sendall(_request(engine, endless + " SETTINGS max_execution_time = 2"))
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", engine.port)) as leaving:
                leaving.sendall(_request(engine, endless))
        # One of those three would be cut off after 60 s, twice as long as this waits.
        asking = HTTPConnection("127.0.0.1", engine.port, timeout=30)
        user = {"X-ClickHouse-User": engine.reader.name, "X-ClickHouse-Key": engine.reader.password}
        asking.request("POST", "/", "SELECT 1", user)
        assert asking.getresponse().read() == b"1\n"
        asking.close()


def _request(engine: EmbeddedClickHouse, sql: str) -> bytes:
    return (
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(sql)}\r\n"
        f"X-ClickHouse-User: {engine.reader.name}\r\n"
        f"X-ClickHouse-Key: {engine.reader.password}\r\n\r\n{sql}"
    ).encode()
