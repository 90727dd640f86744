"""Other people's ClickHouse clients connect to the embedded front as finance.

What their packages come with is tried here for real; of the others every kind of request was
recorded (`clickhouse/recorded.json`) and is sent again. With METERING_TEST_CLIENTS=1 the clients of
Go, Node, Java and clickhouse-sqlalchemy are fetched and run as well (`clickhouse/clients/`).
"""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chdb
import lz4.block
import pytest
from clickhouse_cityhash.cityhash import CityHash128

from deploy.embedded import EmbeddedClickHouse
from deploy.embedded.clickhouse.compressed import CHECKSUM, HEAD, PLAIN_BYTES_MAX, compressed
from deploy.embedded.clickhouse.errors import ClickHouseError
from deploy.embedded.clickhouse.native import column_end, for_revision, parse_type
from tests.deploy.clickhouse.clients.sqlalchemy_dialects import check
from tests.deploy.finance import ask, set_up

HERE = Path(__file__).with_name("clickhouse")
CLIENTS = HERE / "clients"
RECORDED = json.loads((HERE / "recorded.json").read_text())
# Of clickhouse-go 2.50.
REVISION = 54_460
FROM_SQLALCHEMY = "3 0 id,a,b,m,at True True True ['v'] (1, 2) True"
wants_clients = pytest.mark.skipif(
    os.environ.get("METERING_TEST_CLIENTS") != "1",
    reason="fetches packages; METERING_TEST_CLIENTS=1 runs it",
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    engine = EmbeddedClickHouse(tmp_path_factory.mktemp("engine"))
    set_up(engine)
    yield engine
    engine.kill()


def _expanded(blocks: bytes) -> bytes:
    """What a client makes of compressed blocks, checksums compared."""
    plain = b""
    while blocks:
        first, second = CHECKSUM.unpack_from(blocks)
        method, size, plain_size = HEAD.unpack_from(blocks, CHECKSUM.size)
        block, blocks = (
            blocks[CHECKSUM.size : CHECKSUM.size + size],
            blocks[CHECKSUM.size + size :],
        )
        assert (method, divmod(CityHash128(block), 1 << 64)) == (0x82, (first, second))
        plain += lz4.block.decompress(block[HEAD.size :], uncompressed_size=plain_size)
    return plain


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_a_recorded_request_is_answered(engine: EmbeddedClickHouse, number: int) -> None:
    recorded: dict[str, Any] = RECORDED[number]
    arguments = (engine, engine.reader, recorded["body"], recorded["headers"], recorded["method"])
    status, _, text = ask(*arguments, **recorded["parameters"])
    assert status == 200, text
    if recorded["parameters"].get("compress") == "1":
        plain = dict(recorded["parameters"], compress="0")
        assert _expanded(text) == ask(*arguments, **plain)[2] != b""


def test_every_column_has_its_serialization_from_the_revision_that_reads_it(
    engine: EmbeddedClickHouse,
) -> None:
    sql = "SELECT toUInt8(7) AS x, 'ab' AS y FORMAT Native"
    block_info, types = b"\x01\x00\x02\xff\xff\xff\xff\x00", (b"\x01x\x05UInt8", b"\x01y\x06String")
    plain = b"\x02\x01" + types[0] + b"\x07" + types[1] + b"\x02ab"
    assert ask(engine, engine.reader, sql)[2] == plain
    assert ask(engine, engine.reader, sql, client_protocol_version="54405")[2] == block_info + plain
    assert ask(engine, engine.reader, sql, client_protocol_version=str(REVISION))[2] == (
        block_info + b"\x02\x01" + types[0] + b"\x00\x07" + types[1] + b"\x00\x02ab"
    )


def test_a_result_without_rows_keeps_its_columns_in_every_revision(
    engine: EmbeddedClickHouse,
) -> None:
    sql = "SELECT id FROM metering.t WHERE id < 0 FORMAT Native"
    for revision, ending in (("54405", b"\x05Int64"), (str(REVISION), b"\x05Int64\x00")):
        answer = ask(engine, engine.reader, sql, client_protocol_version=revision)[2]
        assert answer == b"\x01\x00\x02\xff\xff\xff\xff\x00\x01\x00\x02id" + ending


def test_the_end_of_a_column_of_every_type_is_found() -> None:
    """Each between itself and a text, in a block of one row and in one of a thousand."""
    connection = chdb.connect(":memory:")
    for expression in (HERE / "columns.txt").read_text().splitlines():
        for rows in (1, 1000):
            sql = f"SELECT {expression} AS a, {expression} AS b, 'end' AS c FROM numbers({rows})"
            block = bytes(connection.query(sql, "Native").bytes())
            sent = for_revision(block, REVISION)
            # A block's head, and a byte for each of three columns, and nothing left over.
            assert len(sent) == len(block) + 8 + 3, expression
    connection.close()


def test_a_column_whose_end_cannot_be_found_is_refused_with_what_to_do() -> None:
    with pytest.raises(ClickHouseError, match=r"type JSON .* convert it with toString"):
        column_end(b"\x00" * 100, 0, parse_type("JSON(max_dynamic_paths=8)"), 1)


@pytest.mark.parametrize("size", [0, 1, PLAIN_BYTES_MAX, PLAIN_BYTES_MAX + 1])
def test_compressed_blocks_hold_what_was_put_in(size: int) -> None:
    assert _expanded(compressed(b"x" * size)) == b"x" * size


def test_sqlalchemy_with_clickhouse_connect(engine: EmbeddedClickHouse) -> None:
    reader = engine.reader
    address = f"{reader.name}:{reader.password}@127.0.0.1:{engine.port}/metering"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert check(f"clickhousedb://{address}") == FROM_SQLALCHEMY


def _output(*command: str, directory: Path) -> list[str]:
    finished = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=280, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout.splitlines()


def _arguments(engine: EmbeddedClickHouse) -> tuple[str, str, str]:
    return str(engine.port), engine.reader.name, engine.reader.password


def _copied(name: str, to: Path) -> Path:
    return Path(shutil.copytree(CLIENTS / name, to / name))


@wants_clients
@pytest.mark.skipif(not shutil.which("go"), reason="go is not installed")
def test_clickhouse_go(engine: EmbeddedClickHouse, tmp_path: Path) -> None:
    directory = _copied("go", tmp_path)
    lines = _output("go", "run", ".", *_arguments(engine), directory=directory)
    assert lines == [f"{way} 3 200000 1 4 45 true" for way in ("none", "lz4", "zstd", "gzip")]


@wants_clients
@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_the_node_client(engine: EmbeddedClickHouse, tmp_path: Path) -> None:
    directory = _copied("node", tmp_path)
    _output("npm", "install", "--silent", "--no-audit", directory=directory)
    lines = _output("node", "client.mjs", *_arguments(engine), directory=directory)
    assert lines == [f"{way} true 3 200000 1 1 4 164" for way in ("plain", "compressed")]


@wants_clients
@pytest.mark.skipif(
    not (shutil.which("mvn") and shutil.which("javac")), reason="no Maven, or no JDK"
)
def test_clickhouse_jdbc(engine: EmbeddedClickHouse, tmp_path: Path) -> None:
    directory = _copied("java", tmp_path)
    _output("mvn", "-q", "-B", "dependency:copy-dependencies", directory=directory)
    lines = _output(
        "java",
        "-cp",
        "target/dependency/*",
        "Client.java",
        *_arguments(engine),
        directory=directory,
    )
    assert lines == [f"{way} true 3 4 200000 2 2 5 true true 2 true" for way in ("true", "false")]


@wants_clients
def test_clickhouse_sqlalchemy(engine: EmbeddedClickHouse, tmp_path: Path) -> None:
    """It wants an older SQLAlchemy than ours, so it gets an environment of its own."""
    _output(sys.executable, "-m", "venv", "own", directory=tmp_path)
    python = str(tmp_path / "own" / "bin" / "python")
    _output(
        python, "-m", "pip", "install", "-q", "clickhouse-sqlalchemy==0.3.2", directory=tmp_path
    )
    reader = engine.reader
    url = f"clickhouse+http://{reader.name}:{reader.password}@127.0.0.1:{engine.port}/metering"
    script = str(CLIENTS / "sqlalchemy_dialects.py")
    assert _output(python, script, url, directory=tmp_path) == [FROM_SQLALCHEMY]
