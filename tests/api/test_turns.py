"""Nobody waits for somebody else's long write, and nobody without an end."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Event, Thread

import httpx
import pytest

from api.errors import Refused
from api.storage.turns import EVERYBODY, WAITING_OF_ONE_MAX, Turns
from tests.api.serving import SETUP, Served, serving
from tests.conftest import MakeSettings

NO_END_S = 60.0


@contextmanager
def waiting(turns: Turns, whose: str, count: int = 1) -> Iterator[list[str]]:
    """Threads that wait for turns until the block ends; in the list is who has had one."""
    had: list[str] = []

    def wait() -> None:
        with turns.turn(whose, NO_END_S):
            had.append(whose)

    threads = [Thread(target=wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    while len(turns.waiting) < count:
        Event().wait(0.001)
    yield had
    for thread in threads:
        thread.join(NO_END_S)


def test_others_pass_who_waits_for_his_own_organization() -> None:
    turns = Turns(2, wait_s=0.0)
    with ExitStack() as stack, turns.turn("a"):
        had = stack.enter_context(waiting(turns, "a"))
        with turns.turn("b"):
            assert had == []
        with turns.turn(EVERYBODY):
            assert had == []
    assert had == ["a"]


def test_one_at_a_time_where_the_database_takes_one() -> None:
    turns = Turns(1, wait_s=0.01)
    with turns.turn("a"), pytest.raises(Refused, match="busy") as refused, turns.turn("b"):
        pass
    assert refused.value.status == 503
    assert int(refused.value.headers["Retry-After"]) > 0
    with turns.turn("b"):
        pass


def test_an_organization_fills_its_own_places_only() -> None:
    turns = Turns(2, wait_s=0.0)
    with ExitStack() as stack, turns.turn("a"):
        had = stack.enter_context(waiting(turns, "a", WAITING_OF_ONE_MAX))
        with pytest.raises(Refused), turns.turn("a", NO_END_S):
            pass
        with turns.turn("b"):
            pass
        assert had == []
    assert len(had) == WAITING_OF_ONE_MAX


@pytest.fixture
def served(make_settings: MakeSettings) -> Iterator[Served]:
    with serving(make_settings()) as opened:
        yield opened


def test_reads_and_health_are_never_behind_writes(served: Served) -> None:
    base = "/v1/organizations/org_a"
    served.control.store.turns.wait_s = 1.0
    with served.client("admin") as admin, served.client("admin", "org_b") as other:
        has_begun, may_end = Event(), Event()

        def write_long() -> None:
            with served.control.change("org_a", SETUP):
                has_begun.set()
                may_end.wait(NO_END_S)

        def post(client: httpx.Client, number: int) -> httpx.Response:
            return client.post(f"{base}/groups", json={"name": f"G{number}"})

        with ThreadPoolExecutor(61) as pool:
            pool.submit(write_long)
            assert has_begun.wait(NO_END_S)
            writes = [pool.submit(post, admin, number) for number in range(60)]
            try:
                for _ in range(3):
                    assert admin.get(f"{base}/members").status_code == 200
                    assert other.get("/v1/organizations/org_b").status_code == 200
                    assert httpx.get(f"{served.url}/health/ready/control-plane").status_code == 200
                answers = [write.result(NO_END_S) for write in writes]
            finally:
                may_end.set()
        assert {answer.status_code for answer in answers} == {503}
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
        assert answers[0].json()["error"]["code"] == "busy"
        assert post(admin, 0).status_code == 201
