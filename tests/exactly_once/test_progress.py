"""Whether what a partition's changelogs hold can be one whole."""

from pathlib import Path

import msgspec
import pytest

from schemas.progress import Progress, TopicIds
from streams.app import changelog_of
from streams.exactly_once import RuntimeConfig
from streams.exactly_once.local_store import LocalStore
from streams.exactly_once.progress import PROGRESS_KEY, TOPICS_KEY, StateLost, committed_positions
from streams.exactly_once.state import Codec

NOW = TopicIds("cluster", {"t.usage": "1", "t.balances": "2", "t.state": "3"})
CONFIG = RuntimeConfig(
    app_id="app",
    client_options={},
    directory=Path(),
    input_order=("usage",),
    state_topic="state",
    seen_topic="seen",
    changelogs=("balances", "state", "seen"),
    codec=Codec(msgspec.json.encode, msgspec.json.encode, lambda _, raw: raw, changelog_of),
    topic_prefix="t.",
)
PROGRESS = (PROGRESS_KEY, msgspec.json.encode(Progress({"usage": 7})))
TOPICS = (TOPICS_KEY, msgspec.json.encode(NOW))
POOL = (b'["pool","org"]', b"{}")


def positions(path: Path, *items: tuple[bytes, bytes], now: TopicIds = NOW) -> dict[str, int]:
    store = LocalStore(path, tag="", window_ms=1, max_age_s=1)
    store.write(items, {})
    try:
        return committed_positions(store, CONFIG, now)
    finally:
        store.close()


def test_a_partition_that_was_never_worked_on_begins_anew(tmp_path: Path) -> None:
    assert positions(tmp_path) == {}


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    assert positions(tmp_path, PROGRESS, TOPICS, POOL) == {"usage": 7}


def test_topics_of_before_they_were_noted_are_taken_as_they_are(tmp_path: Path) -> None:
    assert positions(tmp_path, PROGRESS, POOL) == {"usage": 7}


def test_a_further_topic_is_none_that_was_lost(tmp_path: Path) -> None:
    now = TopicIds("cluster", {**NOW.ids, "t.more": "4"})
    assert positions(tmp_path, PROGRESS, TOPICS, now=now) == {"usage": 7}


def test_balances_without_positions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StateLost, match=r"^t\.state says nothing .* deleted and created again"):
        positions(tmp_path, POOL)


@pytest.mark.parametrize("topic", NOW.ids)
def test_a_topic_that_was_created_again_is_refused(tmp_path: Path, topic: str) -> None:
    now = TopicIds("cluster", {**NOW.ids, topic: "another"})
    with pytest.raises(StateLost, match=rf"^{topic} was deleted and created again") as refused:
        positions(tmp_path, PROGRESS, TOPICS, POOL, now=now)
    assert "delete t.balances, t.state, t.seen" in str(refused.value)


def test_a_topic_that_an_input_is_read_from_no_more_is_refused(tmp_path: Path) -> None:
    now = TopicIds("cluster", {"t.balances": "2", "t.state": "3"})
    with pytest.raises(StateLost, match=r"^t\.usage was"):
        positions(tmp_path, PROGRESS, TOPICS, now=now)
