"""What ClickHouse answers: through the views, as finance sees it."""

from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from schemas.settings import Settings

TIMEOUT_S: Final = 300


def rows(settings: Settings, statement: str) -> list[list[Any]]:
    """The rows of a SELECT, Int64 as numbers. Raises OSError with the engine's words."""
    address = urlsplit(settings.clickhouse_url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
    options = urlencode(
        {
            "database": settings.clickhouse_database,
            "output_format_json_quote_64bit_integers": "0",
            "output_format_json_quote_decimals": "1",
        }
    )
    try:
        connection.request(
            "POST",
            f"/?{options}",
            f"{statement} FORMAT JSONCompactEachRow".encode(),
            {
                "X-ClickHouse-User": settings.clickhouse_user,
                "X-ClickHouse-Key": settings.clickhouse_password.get_secret_value(),
            },
        )
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(body.decode("utf-8", "replace")[:500])
    return [msgspec.json.decode(line) for line in body.splitlines()]
