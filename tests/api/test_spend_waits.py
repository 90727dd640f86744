"""A ClickHouse that hangs takes some threads of the API, never all."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.errors import Refused
from api.reading.spend import Spend
from tests.conftest import MakeSettings


def test_questions_behind_one_that_hangs_are_refused(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.reading.spend.QUESTIONS_AT_ONCE_MAX", 1)
    monkeypatch.setattr("api.reading.spend.PLACE_WAIT_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        port = silent.getsockname()[1]
        spend = Spend(make_settings(clickhouse_url=f"http://127.0.0.1:{port}"))
        hanging = pool.submit(spend.query, "SELECT 1", {})
        connection, _ = silent.accept()
        with pytest.raises(Refused, match="busy") as refused:
            spend.query("SELECT 1", {})
        assert refused.value.status == 503
        waiting = [spend.soon(spend.query, "SELECT 1", {}) for _ in range(1)]
        assert isinstance(waiting[0].exception(), Refused)
        silent.close()
        connection.close()
        assert isinstance(hanging.exception(), Refused)
        with pytest.raises(Refused, match="spend_unavailable"):
            spend.query("SELECT 1", {})
        spend.close()
