"""How far a partition has come, as its state changelog says, and whether that can be true.

Positions, state and seen ids are one whole, in several topics. A topic that somebody deletes and
creates again is empty, and the others go on as if nothing were missing: facts would be applied
again to balances that have them already, usage charged again, or credits gone. So the changelog
says which topics it goes with, and a partition whose parts do not fit is not worked on.
"""

from typing import Final

import msgspec

from schemas.progress import Progress, TopicIds
from streams.exactly_once.config import RuntimeConfig
from streams.exactly_once.local_store import LocalStore

PROGRESS_KEY: Final = b'["progress"]'
TOPICS_KEY: Final = b'["topics"]'
"""Written with the first transaction of a lane, where it is not there yet."""


class StateLost(RuntimeError):
    """A topic with a part of the state was deleted; nothing may go on without it."""


def committed_positions(store: LocalStore, config: RuntimeConfig, now: TopicIds) -> dict[str, int]:
    """The next offset of each input, as of the last transaction; empty before the first.

    `store` is what all changelogs hold, `now` the topics there are. Raises StateLost.
    """
    raw_topics = store.get(TOPICS_KEY)
    if raw_topics is not None:
        former = msgspec.json.decode(raw_topics, type=TopicIds)
        recreated = [name for name, topic_id in former.ids.items() if now.ids.get(name) != topic_id]
        if recreated:
            raise StateLost(
                f"{_named(recreated)} deleted and created again, but balances, seen ids and "
                f"positions go with what was there before. {_what_to_do(config)}"
            )
    raw = store.get(PROGRESS_KEY)
    if raw is None and store.has_state():
        raise StateLost(
            f"{config.topic(config.state_topic)} says nothing of how far the inputs were read, but "
            "there are balances: it was deleted and created again, and facts would be applied to "
            f"them a second time. {_what_to_do(config)}"
        )
    return msgspec.json.decode(raw, type=Progress).positions if raw is not None else {}


def _named(topics: list[str]) -> str:
    return f"{', '.join(sorted(topics))} {'was' if len(topics) == 1 else 'were'}"


def _what_to_do(config: RuntimeConfig) -> str:
    changelogs = ", ".join(config.topic(name) for name in config.changelogs)
    return (
        "Bring back the topics as they were, from a backup of the brokers; or begin anew with all "
        f"workers stopped: delete {changelogs}, and create them again. Facts are then applied from "
        "the beginning, and usage that its topic still has is charged again."
    )
