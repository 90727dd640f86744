"""Plain Faust as its documentation teaches: an agent, an event at a time, a table for the pools
with its changelog, a sink topic; at least once, no dedupe. The same decisions on the same facts.

    python -m bench.plain_faust worker --without-web

Where the documentation leaves a choice, the quicker one: raw bytes in and out, msgspec, uvloop,
facts in memory from the start.
"""

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import faust
import uvloop

from bench.reading import read_facts
from schemas import topics
from schemas.codec import StateKey, alias_hash, decode_state, encode
from schemas.records import RatedEvent
from schemas.settings import Settings
from streams.decisions.events import Limits, UsageEvent
from streams.decisions.intake import Intake
from streams.decisions.state import MemoryState
from streams.decisions.usage import UsageContext, apply_rated, decide_usage


class TableState:
    """What decisions read: pools from the table, all else from the facts."""

    def __init__(self, facts: MemoryState, pools: Any) -> None:
        self._facts = facts
        self._pools = pools

    def get(self, key: StateKey) -> Any | None:
        if key[0] != "pool":
            return self._facts.get(key)
        raw = self._pools.get("/".join(key[1:]))
        return self._facts.get(key) if raw is None else decode_state("pool", raw)

    def put(self, key: StateKey, value: Any) -> None:
        self._pools["/".join(key[1:])] = encode(value)

    def delete(self, key: StateKey) -> None:
        self._pools.pop("/".join(key[1:]), None)


def build(settings: Settings, facts: MemoryState) -> faust.App:
    directory = Path(settings.data_dir) / settings.app_id
    directory.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        settings.app_id,
        broker=f"kafka://{settings.kafka_bootstrap}",
        datadir=str(directory),
        topic_partitions=settings.partitions,
        topic_replication_factor=1,
        store="memory://",
        web_enabled=False,
    )
    usage = app.topic(
        settings.topic(topics.USAGE), key_serializer="raw", value_serializer="raw", key_type=bytes
    )
    rated_topic = app.topic(
        settings.topic(topics.USAGE_RATED), key_serializer="raw", value_serializer="raw"
    )
    pools = app.Table("pools", partitions=settings.partitions, key_type=str, value_type=bytes)
    state = TableState(facts, pools)
    intake = Intake(Limits())
    hashed = partial(alias_hash, b"")
    contexts = {
        number: UsageContext(settings.topic(topics.USAGE), number, hashed, datetime.now(UTC))
        for number in range(settings.partitions)
    }

    @app.agent(usage)  # type: ignore[untyped-decorator]
    async def rate(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            appended_at = datetime.fromtimestamp(message.timestamp, UTC)
            parsed = intake.parse(message.value, message.key, (), appended_at)
            assert isinstance(parsed, UsageEvent), parsed
            context = contexts[message.partition]
            context.now = datetime.now(UTC)
            rated = decide_usage(parsed, message.offset, state, context)
            assert isinstance(rated, RatedEvent), rated
            apply_rated(rated, state)
            await rated_topic.send(key=message.key, value=encode(rated))

    return app


def main() -> None:
    settings = Settings.model_validate({})
    uvloop.install()
    facts = asyncio.run(read_facts(settings))
    build(settings, facts).main()


if __name__ == "__main__":
    main()
