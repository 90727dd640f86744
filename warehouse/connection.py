"""One ClickHouse client, configured from Settings. Blocks; from asyncio use `asyncio.to_thread`."""

from typing import Any, Final
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from schemas.settings import Settings

CONNECT_TIMEOUT_S: Final = 5
QUERY_TIMEOUT_S: Final = 120
UNKNOWN_DATABASE: Final = "UNKNOWN_DATABASE"


class WarehouseError(Exception):
    """ClickHouse cannot be used as configured; the text says what to mend."""


class WarehouseAway(WarehouseError):
    """ClickHouse does not answer."""


def connect(settings: Settings, *, database: str | None = None) -> Any:
    """A clickhouse-connect client in the configured database (or in `database`).

    Raises `WarehouseError` when it is unreachable, refuses the user or lacks the database.
    """
    url = urlsplit(settings.clickhouse_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise WarehouseError("METERING_CLICKHOUSE_URL is not an http:// or https:// address")
    is_secure = url.scheme == "https"
    name = settings.clickhouse_database if database is None else database
    try:
        return clickhouse_connect.get_client(
            interface=url.scheme,
            host=url.hostname,
            port=url.port or (8443 if is_secure else 8123),
            proxy_path=url.path.strip("/"),
            username=settings.clickhouse_user,
            password=settings.clickhouse_password.get_secret_value(),
            database=name,
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=QUERY_TIMEOUT_S,
            # A session would serialize queries and outlive a load balancer's choice of replica.
            autogenerate_session_id=False,
            tz_mode="aware",
        )
    except OperationalError as error:
        raise WarehouseAway(f"ClickHouse does not answer: {_cause(error)}") from error
    except ClickHouseError as error:
        if UNKNOWN_DATABASE in str(error):
            raise WarehouseError(
                f"ClickHouse has no database {name!r} yet: run `metering migrate`"
            ) from error
        raise WarehouseError(f"ClickHouse refuses: {_first_line(error)}") from error


def _cause(error: BaseException) -> str:
    """What the system said; the client wraps it in its own attempts, several times."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__ or getattr(inner, "reason", None)
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:500]
