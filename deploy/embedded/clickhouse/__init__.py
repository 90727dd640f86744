"""ClickHouse without a server: the chdb engine behind the HTTP interface that our clients speak.

Lives here: the front as a process of its own (`python -m deploy.embedded.clickhouse`) and
`EmbeddedClickHouse`, which runs it. One code path serves both this and a real server, so the front
answers as a server does: same parameters, same error codes, same formats.
Rules: only the front's process imports chdb; `process` stays free of it.
"""

from deploy.embedded.clickhouse.process import EmbeddedClickHouse
from deploy.embedded.clickhouse.users import User

__all__ = ["EmbeddedClickHouse", "User"]
