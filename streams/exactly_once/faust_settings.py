"""What a Faust app under the runtime is configured with, and why."""

from typing import Any, Final

from faust.tables import TableManager

DAY_S: Final = 86_400.0
HEARTBEATS_A_SESSION: Final = 5


class _NoTables(TableManager):  # type: ignore[misc]
    """There are no tables to wait for: Faust sleeps a second here at every start."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


def faust_settings(session_timeout_s: float) -> dict[str, Any]:
    """Arguments for `faust.App`, besides its id, brokers, data directory and instance id.

    `session_timeout_s` is how long the broker waits for a worker that does not answer before
    another takes its partitions; a worker with a stable instance id that is back by then causes no
    rebalance.
    """
    return {
        "topic_disable_leader": True,
        "topic_allow_declare": False,
        "web_enabled": False,
        "store": "memory://",
        "TableManager": _NoTables,
        "broker_session_timeout": session_timeout_s,
        "broker_heartbeat_interval": session_timeout_s / HEARTBEATS_A_SESSION,
        "broker_rebalance_timeout": max(30.0, session_timeout_s),
        # A long recovery polls nothing. Whether the worker is alive is judged by its progress.
        "broker_max_poll_interval": DAY_S,
        "stream_recovery_delay": 0.0,
        "stream_buffer_maxsize": 64,
    }
