"""Waiting until the demo's past usage can be queried, as the read-only finance user would ask."""

import base64
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import quote, urlsplit

TIMEOUT_S: Final = 60.0
SETTLED_S: Final = 2.0
"""The count has not changed for so long: what was sent at once has arrived."""
QUERY_S: Final = 10.0


def wait_for_usage(
    url: str,
    user: str,
    password: str,
    organization_id: str,
    source: str,
    watch: Callable[[float], None],
    *,
    database: str,
) -> bool:
    """Whether events of the source are there, all that come at once; False after `TIMEOUT_S`.

    `watch` is given the time between two looks, in seconds.
    """
    deadline = time.monotonic() + TIMEOUT_S
    count, since = 0, time.monotonic()
    while time.monotonic() < deadline:
        present = _count(url, user, password, database, organization_id, source)
        if present != count:
            count, since = present, time.monotonic()
        if count and time.monotonic() - since >= SETTLED_S:
            return True
        watch(0.5)
    return False


def _count(
    url: str, user: str, password: str, database: str, organization_id: str, source: str
) -> int:
    """0 also while the engine does not answer: it is being restarted then."""
    address = urlsplit(url)
    statement = (
        "SELECT count() FROM usage_rated WHERE organization_id = {organization:String} "
        "AND source = {source:String} AND revision = 0 FORMAT TabSeparated"
    )
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    connection = HTTPConnection(address.hostname or "", address.port, timeout=QUERY_S)
    try:
        connection.request(
            "POST",
            f"/?database={database}&param_organization={quote(organization_id)}"
            f"&param_source={quote(source, safe='')}",
            body=statement,
            headers={"Authorization": f"Basic {credentials}"},
        )
        response = connection.getresponse()
        text = response.read()
        return int(text) if response.status == HTTPStatus.OK else 0
    except (OSError, HTTPException, ValueError):
        return 0
    finally:
        connection.close()
