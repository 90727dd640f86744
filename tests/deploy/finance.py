"""Finance at the embedded ClickHouse: a database with something in it, and plain requests."""

from http.client import HTTPConnection
from urllib.parse import urlencode

from deploy.embedded import EmbeddedClickHouse
from deploy.embedded.clickhouse import User

SETUP = (
    "CREATE DATABASE metering",
    "CREATE TABLE metering.t (id Int64, a String, b Array(Int8), m Map(String, Int64),"
    " at DateTime64(3)) ENGINE = ReplacingMergeTree ORDER BY id",
    "INSERT INTO metering.t SELECT number, toString(number), [1], map('a', 1), now64(3)"
    " FROM numbers(10)",
    "CREATE VIEW metering.v AS SELECT * FROM metering.t FINAL",
)


def set_up(engine: EmbeddedClickHouse) -> None:
    engine.start()
    for statement in SETUP:
        status, _, text = ask(engine, engine.writer, statement)
        assert status == 200, text


def ask(
    engine: EmbeddedClickHouse,
    user: User,
    sql: str,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    **parameters: str,
) -> tuple[int, str | None, bytes]:
    """Status, ClickHouse's error code, and the answer."""
    connection = HTTPConnection("127.0.0.1", engine.port, timeout=60)
    sent = {"X-ClickHouse-User": user.name, "X-ClickHouse-Key": user.password, **(headers or {})}
    connection.request(method, "/?" + urlencode(parameters), sql.encode(), sent)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, answer.getheader("X-ClickHouse-Exception-Code"), text
